"""The memory that a method needs for a view: asked of a scheduler, and looked for before hours are spent."""

from pathlib import Path

from ctrflow.disk import size
from ctrflow.errors import InputError
from ctrflow.machine import memory_bytes

BASE_BYTES = 3e9  # libraries, a network, and the blocks of a view that are dense at a time (docs/scale.md)
FILE_TO_MEMORY = 2.0  # a view that lies in its file compressed, with what is computed of each spot
FILE_TO_DENSE = 4.0  # a view of 3,000 genes, a tenth of them counted in a spot, as one dense copy (float32)
PICTURE_COPIES = 2  # as read, section by section, and put together
FILE_TO_FOLD = 8.0  # a section and the target, as read and as cut; the largest file is that of image features


def asked_mb(dense: float, file_bytes: float, pictures_bytes: float = 0) -> int:
    """What a scheduler is asked for, MB: for a method that holds `dense` copies of a view that lies in such a file."""
    view = (FILE_TO_MEMORY + FILE_TO_DENSE * dense) * file_bytes
    return int((BASE_BYTES + view + PICTURE_COPIES * pictures_bytes) / 1e6)


def listed_bytes(path: str | Path) -> float:
    """The bytes of the pictures that a list names (`storage.read_listed_patches`); 0 before it is there."""
    path = Path(path)  # read here, not by pandas: it is asked once a job
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [line.split("\t") for line in lines]
    return sum(float(row[rows[0].index("bytes")]) for row in rows[1:])


def fold_mb(file_bytes: float) -> int:
    """What a scheduler is asked for, MB: for the tables of a fold whose largest input is such a file."""
    return int((1e9 + FILE_TO_FOLD * file_bytes) / 1e6)


def require(spec, view, options: dict) -> None:
    """Refuse a view of which a method would hold more than this machine has.

    Raises
    ------
    InputError
        with the size, and what to do.
    """
    spots = min(view.n_obs, options.get("max_reference_spots") or view.n_obs)
    read = options.get("modalities", spec.modalities)
    widths = {"gene": view.n_vars, "image": view.obsm["image"].shape[1] if "image" in view.obsm else 0}
    features = sum(widths[name] for name in read)
    holds = {
        f"{spots:,} spots x {features:,} features {spec.dense:g} times over": 4.0 * spec.dense * spots * features,
        f"the pictures of {view.n_obs:,} spots": PICTURE_COPIES * _pictures_bytes(spec, view, options),
    }
    need, total = sum(holds.values()), memory_bytes()
    if need and BASE_BYTES + need > total > 0:
        raise InputError(
            f"method {spec.name}: would hold {' and '.join(what for what, one in holds.items() if one)}, {size(need)}, "
            f"and {size(total)} of memory are here: leave it out of the study (`linear` and `spacrd` read a view in "
            "blocks), take fewer genes (n_genes), smaller pictures (patch_px) or wider bins (spot_um), or use a larger "
            "machine"
        )


def _pictures_bytes(spec, view, options: dict) -> float:
    return 3.0 * options.get("patch_px", 0) ** 2 * view.n_obs if "patches" in spec.needs else 0.0
