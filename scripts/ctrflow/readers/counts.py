"""Checks of a section: raw counts, unique spots and genes, one position per spot."""

import logging
import re

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.readers import genes

logger = logging.getLogger("ctrflow")

MIN_SPOTS = 7  # a spot and its six neighbours
MAX_LOST = 0.05  # largest share of spots that counts and positions of one section may each lack
BLOCK = 10_000_000  # values checked at a time
# A Poisson count of 1000 has a spread of 3 %, and no section is equally deep everywhere.
LEAST_SCALED, SAME_TOTAL = 1000, 0.02
# MARCH1 as Excel writes it in several languages and settings (Ziemann et al., Genome Biology 17:177, 2016)
MONTHS = "jan|feb|m[aä]r|mrz|apr|ma[yi]|jun|jul|aug|sep|oct|okt|nov|de[cz]"
DATE = re.compile(
    rf"\d{{1,2}}(-|\. ?)({MONTHS})[a-z]*\.?|({MONTHS})-\d\d|\d{{4}}-\d\d-\d\d.*|\d{{1,2}}([./])\d{{1,2}}\4\d{{2,4}}",
    re.I,
)


def checked(section, key: str, path: str):
    """The section with float32 CSR counts of one species and unique gene names; an error if they are not raw counts."""
    from scipy import sparse

    kept, names = genes.of_one_species(list(section.var_names), path)
    section = section if kept.all() else section[:, kept].copy()
    section.var_names = names
    require_unique(section.obs_names, path)
    if section.n_obs < MIN_SPOTS:
        raise InputError(
            f"{path}: {section.n_obs} spots; at least {MIN_SPOTS} are needed (a spot and its six neighbours); "
            "check that the file is complete and that its spots lie in the tissue"
        )
    require_counts(section, path)
    require_finite(section.obsm[key], section.obs_names, path)
    require_own_places(section.obsm[key], section.obs_names, path)
    section.X = sparse.csr_matrix(section.X, dtype=np.float32)
    _require_one_count_each(section.X, path)
    unnamed = int((section.var_names == "").sum())
    if unnamed:
        raise InputError(f"{path}: {unnamed:,} genes without a name; the file is damaged, download it again")
    if not section.var_names.is_unique:
        repeated = section.var_names[section.var_names.duplicated()].unique()
        logger.warning("%s: %d gene names occur twice, made unique: %s", path, len(repeated), first_few(repeated))
        section.var_names_make_unique()
    _warn_of_names_and_totals(section, path)
    return section


def _warn_of_names_and_totals(section, path: str) -> None:
    """Warn if a spreadsheet has changed gene names, or if the counts look scaled and rounded."""
    dates = [name for name in section.var_names if DATE.fullmatch(name)]
    if dates:
        logger.warning(
            "%s: %d gene names look like dates (%s): a spreadsheet has converted names such as MARCH1 and SEPT2, so "
            "they match no other section; export the table again without a spreadsheet",
            path, len(dates), first_few(dates),
        )  # fmt: skip
    if section.X.max() == 1:
        logger.warning("%s: every count is 0 or 1, as after binarisation; check that this is the raw matrix", path)
    totals = np.asarray(section.X.sum(axis=1, dtype=np.float64)).ravel()
    totals = totals[totals > 0]
    if totals.min() >= LEAST_SCALED and np.ptp(totals) < SAME_TOTAL * totals.min():
        logger.warning(
            "%s: all spots have about the same total (%.0f to %.0f), as after normalisation; "
            "check that this is the raw matrix",
            path, totals.min(), totals.max(),
        )  # fmt: skip


def _require_one_count_each(matrix, path: str) -> None:
    """Refuse a matrix that stores two counts of one gene in one spot: its indices are damaged."""
    stored = matrix.nnz
    matrix.sum_duplicates()
    if matrix.nnz != stored:
        raise InputError(
            f"{path}: damaged matrix ({stored - matrix.nnz:,} entries are stored twice); download or write it again"
        )


def require_unique(ids, path: str) -> None:
    """Refuse ids that occur twice."""
    twice = ids[ids.duplicated()].unique()
    if len(twice):
        raise InputError(f"{path}: spot ids that occur twice: {first_few(twice)}; keep one row per spot")


def require_counts(counts, path: str) -> None:
    """Refuse an AnnData whose X holds no raw counts: not finite, negative or fractional, or all zero."""
    values = stored_values(counts.X)
    blocks = [values[start : start + BLOCK] for start in range(0, len(values), BLOCK)]
    for is_bad in (lambda part: ~np.isfinite(part), lambda part: part < 0, lambda part: part != np.rint(part)):
        if any(is_bad(part).any() for part in blocks):
            bad = is_bad(values)
            spot, gene = _place(counts, int(bad.argmax()))
            raise InputError(
                f"{path}: spot {spot}, gene {gene}: holds {values[bad][0]:.4g} ({int(bad.sum()):,} such values); "
                "expected raw counts, whole numbers from 0 that are not normalised; give the raw matrix (in an .h5ad: "
                "X, layers['counts'] or .raw)"
            )
    if not values.any():
        raise InputError(f"{path}: every count is zero; check that the export is complete")


def _place(counts, position: int) -> tuple[str, str]:
    """Spot and gene of the value at a position of `stored_values`."""
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


def require_own_places(places: np.ndarray, ids, path: str) -> None:
    """Refuse positions (n x 2, any unit) of which many coincide: several sections in one file, or dummy positions."""
    import pandas as pd

    shared = pd.DataFrame(places).duplicated(keep=False).to_numpy()
    if shared.mean() > MAX_LOST:
        raise InputError(
            f"{path}: {int(shared.sum()):,} of {len(shared):,} spots share their position with another spot: "
            f"{first_few(np.asarray(ids)[shared])}; write one file per section, with one position per spot"
        )
