"""Digests of files and of the code a step runs, since Snakemake does not watch imported modules."""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = "ctrflow"
ROOT = Path(__file__).parent


def of_file(path: str | Path) -> str:
    """SHA-256 of a file, as hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def of_code(*modules: str) -> str:
    """A short digest of modules of this package and of everything in it that they import, directly or not.

    `modules` are dotted names below the package ("methods.linear"). Imports are read from the source, also those inside
    functions; a module that is loaded by name at run time has to be named.
    """
    content = hashlib.sha256()
    for name in sorted(closure(modules)):
        content.update(name.encode() + b"\0" + _file_of(name).read_bytes() + b"\0")
    return content.hexdigest()[:16]


def closure(modules) -> set[str]:
    """The named modules and all modules of this package that they reach by import, as full dotted names."""
    pending = [f"{PACKAGE}.{name}" for name in modules]
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


def _file_of(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _imports(name: str) -> tuple[str, ...]:
    found = set()
    for node in ast.walk(ast.parse(_file_of(name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    inside = {item for item in found if item.split(".")[0] == PACKAGE and item != PACKAGE}
    return tuple(sorted(item for item in inside if _file_of(item) is not None))
