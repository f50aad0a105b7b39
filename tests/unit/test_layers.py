"""The architecture, read from the source: who may import whom, and that a stage has one name everywhere."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter

import pytest

from runs import ROOT

SCRIPTS = ROOT / "scripts"
LIBRARY = SCRIPTS / "ctrflow"
RULES = sorted(path.stem for path in (ROOT / "workflow" / "rules").glob("*.smk") if path.stem != "common")
PACKAGES = sorted(path.parent.name for path in LIBRARY.glob("*/__init__.py"))

# lowest first; a part imports from floors below its own, and nothing beside it
FLOORS = (
    {"classes", "digests", "errors", "findings"},
    {"disk", "machine", "tsv"},
    {"logs", "storage"},
    {"image", "schema"},
    {"scale"},
    {"encoders", "features", "fetch", "plots", "readers", "simulate"},
    {"folds", "nets", "sections"},
    {"methods", "rim"},
    {"export", "results", "training"},
    {"trust"},
    {"within"},
    {"figures", "report"},
    {"plan"},
    {"doctor"},
)
# `digests.closure` follows an import of `x.y` into `x/__init__`: what stood there would re-run every job that uses x
BARE = ("features", "fetch", "folds", "plan", "results", "rim", "scale", "sections", "training", "trust", "within")
FREE_OF_FILES = ("methods", "nets")


def module_name(path) -> str:
    """The dotted name of a file of the library; a script's is its own."""
    return ".".join(path.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in LIBRARY.rglob("*.py")}
# module -> the package that it is in, or itself
PARTS = {name: name.split(".")[1] for name in MODULES if name != "ctrflow"}


@cache
def tree(path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(statements) -> dict[str, str]:
    """Name -> full dotted name, of all imports among statements and what is inside them."""
    found = {}
    for node in statements:
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute: digests.closure reads no others"
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def of_library(names) -> set[str]:
    """The modules of the library among full names, of a name inside a module that module."""
    inside = {name if name in MODULES else name.rpartition(".")[0] for name in names if name.startswith("ctrflow.")}
    return {name for name in inside if name in MODULES and name != "ctrflow"}


@cache
def everywhere(module: str) -> frozenset[str]:
    """The modules that a module imports, inside functions too."""
    return frozenset(of_library(imported(ast.walk(tree(MODULES[module]))).values()))


def test_every_part_of_the_library_has_a_floor():
    assert sorted(set(PARTS.values())) == sorted(name for floor in FLOORS for name in floor)


def test_imports_lead_to_floors_below():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    upward = [
        f"{module} imports {other}"
        for module, part in PARTS.items()
        for other in everywhere(module)
        if PARTS[other] != part and floor[PARTS[other]] >= floor[part]
    ]
    assert upward == []


def test_no_circle_of_modules():
    """Of imports at the top of modules: one inside a function may lead back to the package it is in."""
    graph = {name: of_library(imported(tree(path).body).values()) - {name} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()


def test_nothing_imports_snakemake():
    names = {name: imported(ast.walk(tree(path))).values() for name, path in MODULES.items()}
    assert [name for name, found in names.items() for other in found if other.split(".")[0] == "snakemake"] == []


@pytest.mark.parametrize("package", FREE_OF_FILES)
def test_methods_know_no_files(package):
    inside = [name for name, part in PARTS.items() if part == package]
    known = {PARTS[other] for name in inside for other in everywhere(name)}
    assert known <= {"errors", "features", "image", "nets", package}
    called = {
        name: node.id
        for name in inside
        for node in ast.walk(tree(MODULES[name]))
        if isinstance(node, ast.Name) and node.id in ("Path", "open")
    }
    assert called == {}


# --- one name a stage -------------------------------------------------------------------------------------------------


def test_a_stage_has_one_name():
    for name in RULES:
        assert name in PACKAGES or (LIBRARY / f"{name}.py").is_file(), f"rules/{name}.smk"
        tests = ROOT / "tests" / "unit"
        assert (tests / name).is_dir() if name in PACKAGES else (tests / f"test_{name}.py").is_file(), name


def test_tests_of_a_package_lie_in_a_folder_of_its_name():
    folders = sorted(path.parent.name for path in (ROOT / "tests" / "unit").glob("*/test_*.py"))
    assert sorted(set(folders) - set(PACKAGES)) == []


@pytest.mark.parametrize("package", BARE)
def test_a_package_is_a_docstring_alone(package):
    (docstring,) = tree(LIBRARY / package / "__init__.py").body
    assert isinstance(docstring, ast.Expr)


# --- names ------------------------------------------------------------------------------------------------------------


def defined(body) -> set[str]:
    """The names at the top of a module."""
    found = set(imported(body))
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
        elif isinstance(node, ast.If | ast.Try | ast.With):
            found |= defined([*node.body, *getattr(node, "orelse", [])])
    return found


@cache
def names_in(module: str) -> frozenset[str]:
    """What a module has: its names, and of a package its modules."""
    inside = {name.rpartition(".")[2] for name in MODULES if name.rpartition(".")[0] == module}
    return frozenset(defined(tree(MODULES[module]).body) | inside)


def asked_of_modules(path) -> set[tuple[str, str]]:
    """(module of the library, name in it) of everything that a file takes out of one."""
    names = imported(ast.walk(tree(path)))
    found = {tuple(name.rsplit(".", 1)) for name in names.values() if name.startswith("ctrflow.")}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and names.get(node.value.id) in MODULES:
            found.add((names[node.value.id], node.attr))
    return found


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_a_script_asks_for_what_the_library_has(path):
    """A script runs in the workflow alone: a name that was moved would be missed in the last step of a study."""
    missing = {(module, name) for module, name in asked_of_modules(path) if name not in names_in(module)}
    assert missing == set()


def test_rules_ask_for_what_the_library_has():
    text = "\n".join(path.read_text() for path in [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")])
    code = "\n".join(re.sub(r'"[^"\n]*"', '""', line).split("#")[0] for line in text.splitlines())
    given = [line.partition(" import ") for line in code.splitlines() if line.startswith("from ctrflow")]
    modules = {f"{source[5:]}.{name}": name for source, _, names in given for name in names.split(", ")}
    asked = {
        (module, used)
        for module, name in modules.items()
        if module in MODULES
        for used in re.findall(rf"(?<![\w.]){name}\.(\w+)", code)
    }
    assert {module.split(".")[-1] for module, _ in asked} >= {"paths", "tables", "sections", "resources", "downloads"}
    assert {(module, name) for module, name in asked if name not in names_in(module)} == set()


@pytest.mark.parametrize("path", sorted((ROOT / "workflow" / "rules").glob("*.smk")), ids=lambda path: path.stem)
def test_parameters_follow_from_wildcards_alone(path):
    """Snakemake takes a parameter that uses `input` for derived, and does not re-run a job when it changes."""
    bodies = re.findall(r"^ +params:\n((?: {8,}.*\n|\n)+)", path.read_text(), flags=re.MULTILINE)
    assert bodies or path.stem == "common"
    assert [body for body in bodies if re.search(r"lambda \w+,", body)] == []
