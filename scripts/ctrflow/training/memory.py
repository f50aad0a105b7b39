"""The memory that a method needs for a view: requested from a scheduler, and checked before training."""

from pathlib import Path

from ctrflow.disk import size
from ctrflow.errors import InputError
from ctrflow.machine import memory_bytes

BASE_BYTES = 3e9  # libraries, a network, and dense blocks of a view (docs/scale.md)
FILE_TO_MEMORY = 2.0  # a view, compressed in its file, and what is computed per spot
FILE_TO_DENSE = 4.0  # one dense copy (float32) of a view of 3,000 genes, a tenth of them nonzero in a spot
PICTURE_COPIES = 2  # as read, by section, and concatenated
FILE_TO_FOLD = 8.0  # a section and the target, as read and as cut; the largest file is that of image features


def asked_mb(dense: float, file_bytes: float, pictures_bytes: float = 0) -> int:
    """The memory to request, MB: for a method that makes `dense` dense copies of a view with this file size."""
    view = (FILE_TO_MEMORY + FILE_TO_DENSE * dense) * file_bytes
    return int((BASE_BYTES + view + PICTURE_COPIES * pictures_bytes) / 1e6)


def listed_bytes(path: str | Path) -> float:
    """The size of the patches in a list (`storage.read_listed_patches`); 0 if the list does not exist yet."""
    path = Path(path)  # without pandas, as this runs once per job
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [line.split("\t") for line in lines]
    return sum(float(row[rows[0].index("bytes")]) for row in rows[1:])


def fold_mb(file_bytes: float) -> int:
    """The memory to request, MB: for the tables of a fold whose largest input has this file size."""
    return int((1e9 + FILE_TO_FOLD * file_bytes) / 1e6)


def require(spec, view, options: dict) -> None:
    """Raise an InputError, with sizes and cure, if a method needs more memory for a view than this machine has."""
    spots = min(view.n_obs, options.get("max_reference_spots") or view.n_obs)
    read = options.get("modalities", spec.modalities)
    widths = {"gene": view.n_vars, "image": view.obsm["image"].shape[1] if "image" in view.obsm else 0}
    features = sum(widths[name] for name in read)
    parts = {
        f"{spec.dense:g} copies of {spots:,} spots x {features:,} features": 4.0 * spec.dense * spots * features,
        f"patches of {view.n_obs:,} spots": PICTURE_COPIES * _pictures_bytes(spec, view, options),
    }
    need, total = sum(parts.values()), memory_bytes()
    if need and BASE_BYTES + need > total > 0:
        raise InputError(
            f"method {spec.name}: needs {size(need)} ({', '.join(what for what, one in parts.items() if one)}) and "
            f"{size(BASE_BYTES)} for libraries; this machine has {size(total)}: leave the method out of the study "
            "(`linear` and `spacrd` read a view in blocks), use fewer genes (n_genes), smaller patches (patch_px), "
            "wider bins (spot_um) or a larger machine"
        )


def _pictures_bytes(spec, view, options: dict) -> float:
    return 3.0 * options.get("patch_px", 0) ** 2 * view.n_obs if "patches" in spec.needs else 0.0
