"""The files that come with ctrflow, which a run elsewhere (`snakemake -s`, `--directory`, `module`) finds beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]  # one path, also through a link: it is the input of steps


def found(path: str, holds: str = "") -> str:
    """A path, or, if the working directory does not have it and ctrflow comes with it, that of ctrflow's own.

    `holds` is a glob pattern of what a folder must have: a `models` of another workflow is not ctrflow's.
    """
    own = ROOT / path
    if _has(Path(path), holds) or not _has(own, holds):
        return path
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)


def _has(path: Path, holds: str) -> bool:
    return path.exists() if not holds else any(path.glob(holds))


def names(folder: str, suffix: str) -> list[str]:
    """The names, without `suffix`, of the files of a folder, those of the working directory and ctrflow's own."""
    files = (file for place in (Path(), ROOT) for file in (place / folder).glob(f"*{suffix}"))
    return sorted({file.name.removesuffix(suffix) for file in files})
