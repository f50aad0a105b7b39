"""The paths of all files between stages. Rules and the rest of the plan build their paths from these constants, so that
no folder is spelled twice. The reserved names of studies and tasks follow from them.
"""

from pathlib import Path

DEMO = "data/demo"

# shared by all studies
SECTION = "results/sections/{section}"
EMBEDDING = "results/embeddings/{encoder}/{section}.h5ad"
PATCHES = "results/patches/{um}um-{px}px"
SUPERPIXELS = "results/superpixels/{section}.h5ad"

# of one study
VIEW = "results/{study}/{task}/{fold}/{encoder}/{view}"
DRAWN = "results/{study}/{task}/{fold}/drawn.tsv"
RUN = "results/{study}/{task}/{fold}/{encoder}/{method}/seed{seed}"
MODELS = "results/{study}/model"
SOURCE = f"{MODELS}/{{task}}/{{encoder}}/{{view}}"
MODEL = f"{MODELS}/{{task}}/{{encoder}}/{{method}}.seed{{seed}}"
PRETRAINED = "results/{study}/pretrained/{weights}/seed{seed}"
EXPORT = "results/{study}/export"
FIGURES = "results/{study}/figures"
MAP = f"{FIGURES}/{{section}}.png"
TABLES = "results/{study}/tables"
METRICS = "results/{study}/metrics.tsv"
REPORT = "results/{study}/report.html"
SNAKEMAKE_REPORT = "results/{study}/snakemake_report.html"  # written by `make report`


def of_sections(file: str, sections) -> list[str]:
    """A file of each section: spots.h5ad, labels.tsv, check.json, overlay.png, yardsticks.tsv; drawn.tsv;
    crop.json of a crop."""
    return [f"{SECTION}/{file}".format(section=section) for section in sections]


def embeddings(encoder: str, sections) -> list[str]:
    """The image features of sections; [] for the encoder `none`."""
    return [EMBEDDING.format(encoder=encoder, section=section) for section in sections if encoder != "none"]


def superpixels(sections) -> list[str]:
    """The superpixels of sections."""
    return [SUPERPIXELS.format(section=section) for section in sections]


def patches(um: float, px: int, names, suffix: str = "zarr") -> list[str]:
    """The patches of sections; with the suffix `tsv`, their lists."""
    return [f"{PATCHES}/{name}.{suffix}".format(um=f"{float(um):g}", px=px) for name in names]


def benchmark(rule: str, path: str) -> str:
    """The benchmark file of the job of a rule that makes `path`, a file shared by all studies."""
    return str(Path("benchmarks", rule, *Path(path).parts[2:]).with_suffix(".tsv"))


def job(rule: str, together: bool = False) -> str:
    """The log and the benchmark of a training or scoring, below `logs` and `benchmarks`; of all seeds if `together`."""
    folder = RUN.replace("results/{study}", f"{{study}}/{rule}")
    return folder.replace("seed{seed}", "seeds") if together else folder


def _reserved(parent: str) -> list[str]:
    """The fixed names directly below a folder."""
    below = (Path(pattern).relative_to(parent).parts for pattern in _PATTERNS if pattern.startswith(f"{parent}/"))
    return sorted({parts[0] for parts in below if "{" not in parts[0]})


_PATTERNS = [value for name, value in list(globals().items()) if name.isupper()]
RESERVED_STUDIES = _reserved("results")
RESERVED_TASKS = _reserved("results/{study}")
