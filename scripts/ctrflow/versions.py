"""Which software made a result."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("snakemake", "torch", "torchvision", "timm", "anndata", "scanpy", "squidpy", "scikit-learn", "scikit-image",
            "numpy", "scipy", "pandas", "tifffile", "zarr")  # fmt: skip


def installed() -> dict[str, str]:
    """Name -> version of ctrflow, Python and the packages it stands on, as far as they are in this environment."""
    import ctrflow

    found = {"ctrflow": ctrflow.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
