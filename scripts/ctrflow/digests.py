"""Digests of what Snakemake does not track: the library code of a step, and raw files replaced by older ones."""

import ast
import hashlib
import os
from functools import cache
from pathlib import Path

PACKAGE = "ctrflow"
ROOT = Path(__file__).parent
SMALL_BYTES = 1_000_000  # as Snakemake: files up to this size are identified by their content


def of_code(script: str | Path, *modules: str) -> str:
    """A short digest of the library code that a step's script imports, directly or indirectly.

    `modules` are dotted names below the package ("methods.linear") that are loaded by name at run time. Imports are
    parsed from the source, including those inside functions. Snakemake tracks the script itself.
    """
    content = hashlib.sha256()
    for name in sorted(closure(script, *modules)):
        for path in _files_of(name):
            content.update(f"{name} {path.name}".encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:16]


def of_sources(paths) -> dict[str, str]:
    """Path -> what identifies a raw file: a digest of the content if it is small, else its size and time.

    Snakemake compares times, so it does not notice a file replaced by an older one, or a clock that was set back.
    A folder is identified by the sizes and times of all files in it.
    """
    return {str(path): _state(Path(path)) for path in paths}


def _state(path: Path) -> str:
    if path.is_dir():
        inside = sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        lines = "\n".join(f"{file.relative_to(path)} {_size_and_time(file)}" for file in inside)
        return f"{len(inside)} files, {hashlib.sha256(lines.encode()).hexdigest()[:16]}"
    if not path.is_file():
        return "missing"
    if path.stat().st_size <= SMALL_BYTES:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return _size_and_time(path)


def _size_and_time(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} bytes, {status.st_mtime_ns} ns"


def closure(script: str | Path, *modules: str) -> set[str]:
    """All modules of this package that a script and the named modules import, as full dotted names."""
    pending = [*_imports_of(Path(script)), *(f"{PACKAGE}.{name}" for name in modules)]
    reached: set[str] = set()
    while pending:
        name = pending.pop()
        if name in reached:
            continue
        if _file_of(name) is None:
            raise ValueError(f"no module {name}")
        reached.add(name)
        pending.extend(_imports(name))
    return reached


def _files_of(name: str) -> list[Path]:
    """A module and the files next to it that start with its name, such as page_template.html."""
    path = _file_of(name)
    return [path, *sorted(other for other in path.parent.glob(f"{path.stem}_*") if other.suffix not in ("", ".py"))]


def _file_of(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _imports(name: str) -> tuple[str, ...]:
    return _imports_of(_file_of(name))


def _imports_of(path: Path) -> tuple[str, ...]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    inside = {name for name in names if name.split(".")[0] == PACKAGE and name != PACKAGE}
    return tuple(sorted(name for name in inside if _file_of(name) is not None))
