"""Write docs/lists.md from what the code registers: methods, encoders, platforms, metrics, exports, reserved names.

python docs/generate.py           write the page
python docs/generate.py --check   fail when it differs
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from ctrflow import encoders, export, methods
from ctrflow.plan import paths
from ctrflow.readers import platform
from ctrflow.results import metrics

PAGE = Path(__file__).with_name("lists.md")
HEAD = """# Lists

Generated from the code by `make lists` (`docs/generate.py`); do not edit.
"""
LEARNS_FROM = {
    "labelled_source": "labelled sections",
    "normal_reference": "normal tissue",
    "drawn": "a drawing in the target",
    "marker_prior": "marker genes",
    "control": "nothing (control)",
}


def method_rows() -> list[tuple]:
    """One row a method, those of one regime together."""
    specs = [methods.load(name) for name in methods.names()]
    order = list(methods.REGIMES)
    return [
        (
            f"`{one.SPEC.name}`",
            LEARNS_FROM[one.SPEC.regime],
            ", ".join(one.SPEC.modalities),
            ", ".join(one.SPEC.needs),
            ", ".join(f"`{name}`" for name in one.SPEC.presets),
            summary(one),
            one.SPEC.reference,
        )
        for one in sorted(specs, key=lambda one: order.index(one.SPEC.regime))
    ]


def option_rows() -> list[tuple]:
    """One row an option of a method, with the value of the preset `fast` where that differs."""
    rows = []
    for spec in (methods.load(name).SPEC for name in methods.names()):
        fast = spec.presets.get("fast", {})
        for name, option in spec.options.items():
            quick = f"`{fast[name]}`" if name in fast else ""
            values = ", ".join(f"`{value}`" for value in option.choices)
            rows.append((f"`{spec.name}`", f"`{name}`", f"`{option.default}`", quick, values, option.help))
    return rows


def encoder_rows() -> list[tuple]:
    """One row an encoder; a network says how many features it has and where its weights are."""
    rows = []
    for name in encoders.names():
        module = encoders.load(name)
        network = getattr(module, "NETWORK", None)
        facts = (f"{network.dim:,}", f"{network.side_px} px", network.source.page) if network else ("", "", "")
        rows.append((f"`{name}`", summary(module), *facts))
    return rows


def platform_rows() -> list[tuple]:
    """One row a platform of the section sheet."""
    return [
        (f"`{name}`", spec.holds, ", ".join(f"`{mark}`" for mark in spec.marks), summary(platform.load(name)))
        for name, spec in platform.platforms().items()
    ]


def metric_rows() -> list[tuple]:
    """One row a metric."""
    return [
        (
            f"`{one.name}`",
            one.title,
            one.needs,
            "highest" if one.higher_is_better else "lowest",
            "yes" if one.in_report else "no",
            "yes" if one.weighted else "no",
        )
        for one in metrics.METRICS
    ]


def export_rows() -> list[tuple]:
    """One row an export."""
    specs = {name: export.load(name).EXPORT for name in export.names()}
    return [(f"`{name}`", f"`{spec.path}`", spec.opens, summary(export.load(name))) for name, spec in specs.items()]


def reserved_rows() -> list[tuple]:
    """The names that a study, and a task, may not have."""
    both = {"study": paths.RESERVED_STUDIES, "task": paths.RESERVED_TASKS}
    return [(f"`{key}`", ", ".join(f"`{name}`" for name in names)) for key, names in both.items()]


# heading, the page that says more, columns, rows
LISTS = (
    (
        "Methods",
        "Explained in [methods.md](methods.md) and [baselines.md](baselines.md).",
        ("method", "learns from", "reads", "also needs", "presets", "what it is", "reference"),
        method_rows,
    ),
    (
        "Options of methods",
        "Given under `options` of a method in a study file ([config/README.md](../config/README.md#studies)).",
        ("method", "option", "default", "preset `fast`", "values", "what it means"),
        option_rows,
    ),
    (
        "Encoders",
        "Options: [config/README.md](../config/README.md#encoders).",
        ("`model`", "what it is", "features", "patch", "weights"),
        encoder_rows,
    ),
    (
        "Platforms",
        "What `path` takes: [config/README.md](../config/README.md#the-columns-of-the-section-sheet).",
        ("`platform`", "files", "recognised by", "what it is"),
        platform_rows,
    ),
    (
        "Metrics",
        "Definitions: [methods.md](methods.md#metrics).",
        ("metric", "in tables", "computed from", "best", "in the report's tables", "bootstrap interval"),
        metric_rows,
    ),
    (
        "Exports",
        "The files: [results.md](results.md#files-for-other-viewers).",
        ("module of `scripts/ctrflow/export`", "path", "opens in", "what it writes"),
        export_rows,
    ),
    (
        "Reserved names",
        "These become folders and files of the workflow itself.",
        ("of a", "names that are taken"),
        reserved_rows,
    ),
)


def summary(module) -> str:
    """The first paragraph of a module's docstring, on one line, without its reference to notes that are not shipped."""
    first = " ".join(module.__doc__.split("\n\n")[0].split())
    return re.sub(r" \(METHODS\.md[^)]*\)", "", first)


def render() -> str:
    """The text of the page."""
    parts = [HEAD]
    for heading, more, columns, rows in LISTS:
        lines = [columns, ("---",) * len(columns), *rows()]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        parts.append(f"## {heading}\n\n{more}\n\n{table}\n")
    return "\n".join(parts)


def main(check: bool) -> int:
    """Write or compare the page."""
    text = render()
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if check:
        print(f"{PAGE.name} is out of date; run make lists", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
