"""Vendor files to the section contract: one module a platform here, and the checks they share.

Each platform module has `files(row)`, the paths that its `read(row)` opens, and `read(row)`, an AnnData; `row` is one
row of the section sheet, all text. `read_section` is the way in.
"""

import importlib
import logging
import math
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few

logger = logging.getLogger("ctrflow")

PLATFORMS = ("st", "visium", "xenium", "h5ad")
MIN_SPOTS = 7  # a spot and its six neighbours
MAX_LOST = 0.05  # share of spots with counts but no position that a real section may have
REDUCED_IMAGES = {"hires": "tissue_hires_image", "lowres": "tissue_lowres_image"}


def read_section(row: dict):
    """Read and check one section.

    Parameters
    ----------
    row
        A row of the section sheet: column -> text. `section`, `platform` and `path` are required.

    Returns
    -------
    AnnData
        spots (for `xenium`: cells, to be given to `aggregate.aggregate_cells`). X raw counts as float32 CSR,
        `obs_names` ids, `var_names` unique gene names, `obsm["spatial"]` centres (x, y) in full-resolution px (cells:
        `obsm["spatial_um"]`, µm), `uns["section"]` see `describe`.

    Raises
    ------
    InputError
        for anything a user can put right, naming the file and the cure.
    """
    section = _platform_module(row).read(row)
    key = "spatial_um" if row["platform"] == "xenium" else "spatial"
    return _checked(section, key, row["path"])


def files(row: dict) -> list[str]:
    """The paths that `read_section(row)` opens; where vendors have several layouts and none is there, the newest."""
    return _platform_module(row).files(row)


def _platform_module(row: dict):
    if row["platform"] not in PLATFORMS:
        raise InputError(
            f"section {row['section']}: unknown platform '{row['platform']}'; "
            f"column platform must be one of {', '.join(PLATFORMS)}"
        )
    return importlib.import_module(f"ctrflow.readers.{row['platform']}")


# --- checks -----------------------------------------------------------------------------------------------------------


def _checked(section, key: str, path: str):
    from scipy import sparse

    require_unique(section.obs_names, path)
    if section.n_obs < MIN_SPOTS:
        raise InputError(
            f"{path}: {section.n_obs} spots; at least {MIN_SPOTS} are needed (a spot and its six neighbours); "
            "check that the file is whole and that its spots lie in the tissue"
        )
    require_counts(section, path)
    require_finite(section.obsm[key], section.obs_names, path)
    section.X = sparse.csr_matrix(section.X, dtype=np.float32)
    if not section.var_names.is_unique:
        repeated = section.var_names[section.var_names.duplicated()].unique()
        logger.warning("%s: %d gene names occur twice, made unique: %s", path, len(repeated), first_few(repeated))
        section.var_names_make_unique()
    return section


def require_unique(ids, path: str) -> None:
    """Refuse ids that occur twice."""
    twice = ids[ids.duplicated()].unique()
    if len(twice):
        raise InputError(f"{path}: spot ids that occur twice: {first_few(twice)}; give every spot one row")


def require_counts(counts, path: str) -> None:
    """Refuse an AnnData whose X holds no raw counts: not finite, negative or fractional, or all zero."""
    values = stored_values(counts.X)
    for bad in (~np.isfinite(values), values < 0, values != np.rint(values)):
        if bad.any():
            spot, gene = _place(counts, int(bad.argmax()))
            raise InputError(
                f"{path}: spot {spot}, gene {gene}: holds {values[bad][0]:.4g} ({int(bad.sum()):,} such values); "
                "expected raw counts, whole numbers from 0 that are not normalised; give the raw matrix (in an .h5ad: "
                "X, layers['counts'] or .raw)"
            )
    if not values.any():
        raise InputError(f"{path}: every count is zero; check that the export is whole")


def _place(counts, position: int) -> tuple[str, str]:
    """Spot and gene of one of the `stored_values`."""
    from scipy import sparse

    if sparse.issparse(counts.X):
        matrix = counts.X.tocoo()  # keeps the order of the values
        row, column = matrix.row[position], matrix.col[position]
    else:
        row, column = np.unravel_index(position, counts.X.shape)
    return counts.obs_names[row], counts.var_names[column]


def stored_values(matrix) -> np.ndarray:
    """The values of a dense matrix or the stored ones of a sparse matrix, one-dimensional."""
    from scipy import sparse

    return matrix.data if sparse.issparse(matrix) else np.asarray(matrix).ravel()


def require_finite(positions: np.ndarray, ids, path: str) -> None:
    """Refuse positions with a missing or infinite coordinate."""
    bad = ~np.isfinite(positions).all(axis=1)
    if bad.any():
        raise InputError(
            f"{path}: no finite position for {int(bad.sum()):,} spots: {first_few(np.asarray(ids)[bad])}; "
            "fill them in or leave these spots out"
        )


# --- tables -----------------------------------------------------------------------------------------------------------


def open_text(path: str | Path):
    """Open a text file, gzipped or not as its content says (downloads often lose or keep a .gz wrongly)."""
    import gzip

    with open(path, "rb") as handle:
        gzipped = handle.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt", encoding="utf-8-sig") if gzipped else open(path, encoding="utf-8-sig")


def read_table(path: str | Path, **kwargs):
    """Read a small delimited table, every cell as text ("" where empty); the first line tells tab, comma or semicolon.

    Raises
    ------
    InputError
        if the file is missing, empty, cut short, no text, or a row has too many cells.
    """
    import zlib

    import pandas as pd

    require_file(path)
    try:
        with open_text(path) as handle:
            first = handle.readline()
        separator = max("\t,;", key=first.count)
        with open_text(path) as handle:
            table = pd.read_csv(handle, sep=separator, dtype=str, keep_default_na=False, **kwargs)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as a table ({error}); export or download it again") from error
    return table.fillna("")


def require_file(path: str | Path) -> None:
    """Refuse a path that is no file."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; check columns path, labels and alignment of the section sheet")


def require_columns(table, columns: list[str], path: str | Path) -> None:
    """Refuse a table that lacks one of `columns`."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; it has {first_few(table.columns, 10)}; give the vendor's own file"
        )


def numeric(table, columns: list[str], path: str | Path, first_row: int = 2) -> np.ndarray:
    """Columns of a text table as float64 (rows x columns); `first_row` is the file's row of the first entry."""
    import pandas as pd

    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{path}: row {row + first_row}, column {columns[column]}: '{table[columns].iat[row, column]}' is not a "
            f"number ({len(bad)} such cells); fill it in or delete the row"
        )
    return values


def read_10x_h5(path: str | Path):
    """Gene-expression counts of a 10x HDF5 matrix (Space Ranger, Xenium): AnnData, ids x genes by symbol.

    Source: 10x Genomics, "feature-barcode matrix HDF5 format"; other feature types (control probes, antibodies) are
    left out.
    """
    import warnings

    import h5py
    import scanpy as sc

    from ctrflow.storage import require_hdf5

    require_hdf5(path)
    wanted = [f"matrix/{name}" for name in ("barcodes", "data", "indices", "indptr", "shape")]
    wanted += [f"matrix/features/{name}" for name in ("id", "name", "feature_type")]
    with h5py.File(path, "r") as handle:
        missing = [name for name in wanted if name not in handle]
    if missing:
        raise InputError(
            f"{path}: no 10x feature-barcode matrix, it lacks {first_few(missing)}; give the vendor's file"
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Variable names are not unique")
            counts = sc.read_10x_h5(path, gex_only=True)
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{path}: damaged matrix ({error}); download it again") from error
    return require_genes(counts, path)


def require_genes(counts, path: str | Path):
    """`counts`, unless it has no gene."""
    if counts.n_vars == 0:
        raise InputError(f"{path}: no feature of type 'Gene Expression'; give the gene-expression matrix")
    return counts


# --- counts, positions, scale -----------------------------------------------------------------------------------------


def join(counts, positions, counts_path: str | Path, positions_path: str | Path, key: str = "spatial"):
    """Give counts their positions, in the order of the counts.

    A position without counts is left out (selection files list more spots than were sequenced), and so are up to
    5 % of spots without a position; more than that means files of two sections.

    Parameters
    ----------
    counts
        AnnData.
    positions
        Frame indexed by id with columns x and y.
    key
        Where in `obsm` the positions go (float64, n x 2).
    """
    require_unique(counts.obs_names, str(counts_path))
    require_unique(positions.index, str(positions_path))
    placed = counts.obs_names.isin(positions.index)
    lost = counts.obs_names[~placed]
    if not placed.any():
        raise InputError(
            f"{counts_path} and {positions_path} have no spot in common: the first has "
            f"{first_few(counts.obs_names, 3)}, the second {first_few(positions.index, 3)}; "
            "check that both are of one section"
        )
    if len(lost) > MAX_LOST * counts.n_obs:
        raise InputError(
            f"{counts_path}: {len(lost):,} of {counts.n_obs:,} spots have no position in {positions_path}: "
            f"{first_few(lost)}; check that both files are of one section"
        )
    if len(lost):
        logger.warning("%s: %d spots without a position left out: %s", counts_path, len(lost), first_few(lost))
    spare = len(positions) - int(placed.sum())
    if spare:
        logger.info("%s: %d positions without counts left out", positions_path, spare)
    joined = counts[placed].copy() if len(lost) else counts
    joined.obsm[key] = positions.loc[joined.obs_names, ["x", "y"]].to_numpy(np.float64)
    return joined


def lattice_um_per_px(array_um: np.ndarray, px: np.ndarray) -> float | None:
    """µm per px from where the array was printed: the scale of the least-squares affine map from slide to image.

    All spots vote, so the jitter of single spots averages out. The median distance to the nearest neighbour does not:
    the nearest of several jittered neighbours is nearer than the pitch (7 % on the HER2ST sections).

    Parameters
    ----------
    array_um
        Nominal positions on the slide, n x 2, µm.
    px
        Positions in the image, n x 2, px.

    Returns
    -------
    float or None
        None where the spots do not span a plane.
    """
    usable = np.isfinite(px).all(axis=1)
    slide, image = array_um[usable], px[usable]
    if len(slide) < 3:
        return None
    slide, image = slide - slide.mean(axis=0), image - image.mean(axis=0)
    if np.linalg.matrix_rank(slide) < 2 or np.linalg.matrix_rank(image) < 2:
        return None
    affine = np.linalg.lstsq(slide, image, rcond=None)[0]
    return 1 / math.sqrt(abs(np.linalg.det(affine)))


def visium_array_um(array_row: np.ndarray, array_col: np.ndarray) -> np.ndarray:
    """Visium's array indices as µm on the slide (n x 2): hexagonal, pitch 100 µm, columns counted in half pitches."""
    return np.column_stack([array_col * 50.0, array_row * 100.0 * math.sqrt(3) / 2])


def settle_um_per_px(row: dict, measured: float | None, source: str) -> float:
    """µm per full-resolution px: the sheet's, else `measured` (its `source` goes to the log), else an error."""
    given = number(row, "um_per_px")
    if given is None and measured is None:
        raise InputError(
            f"{row['path']}: section {row['section']}: nothing in the files tells the size of a pixel; "
            "fill column um_per_px of the section sheet (µm per full-resolution pixel)"
        )
    if given is None:
        logger.info("section %s: %.4g µm per px, from %s", row["section"], measured, source)
        return measured
    if measured is not None and abs(given / measured - 1) > 0.15:
        logger.warning(
            "section %s: column um_per_px says %.4g, %s says %.4g; the column is used",
            row["section"], given, source, measured,
        )  # fmt: skip
    return given


def settle_image_scale(row: dict, image: str, scalefactors: dict) -> float:
    """Image px per full-resolution px: the sheet's, else the vendor's for its own reduced images, else 1."""
    given = number(row, "image_scale")
    if given is not None:
        return given
    for kind, name in REDUCED_IMAGES.items():
        if name in Path(image).name and f"tissue_{kind}_scalef" in scalefactors:
            return float(scalefactors[f"tissue_{kind}_scalef"])
    return 1.0


def number(row: dict, column: str) -> float | None:
    """A positive number of the sheet, or None where the cell is empty."""
    text = str(row.get(column) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(
            f"section {row['section']}: column {column} is '{text}'; give a positive number or leave it empty"
        )
    return value


def describe(row: dict, um_per_px: float, spot_um: float, image: str = "", image_scale: float = 1.0) -> dict:
    """The content of `uns["section"]`: section, platform, patient, cohort, tissue, um_per_px (µm per full-resolution
    px), spot_um (spot width, µm), image (path or "") and image_scale (image px per full-resolution px)."""
    text = {name: str(row.get(name) or "") for name in ("section", "platform", "patient", "cohort", "tissue")}
    text["patient"] = text["patient"] or text["section"]
    scales = {"um_per_px": float(um_per_px), "spot_um": float(spot_um), "image_scale": float(image_scale)}
    return text | scales | {"image": str(image)}
