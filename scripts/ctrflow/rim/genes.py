"""The genes of a layer that differ from the rest of the tissue.

Where several sections have a layer, its counts and those of the rest are summed in each (pseudo-bulks), and compared in
pairs: the unit is the patient, or the section if all are of one patient. Where a run has one section, its spots are
compared; they are neighbours, so such a p says little. Tested are genes that ten spots count, and at least a tenth of
those of the layer or of the rest (`min.pct` of Seurat's FindMarkers up to version 4; Hao et al., Cell 184:3573, 2021).
"""

from dataclasses import dataclass

import numpy as np

from ctrflow.folds.genes import log_normalise
from ctrflow.rim.layers import LAYERS

LEAST_SHARE = 0.1  # of the spots of either side that must count a gene
LEAST_SPOTS = 10  # of a layer and of the rest in a section (`min_cells` of decoupler's pseudo-bulks); that count a gene
MOST_GENES = 200  # of a layer in the table, the first in order
DAMPING = 90  # percentile of the standard errors, see `_order`
MOST_SPOTS = 20_000  # of one section that are tested, drawn at random: a rank test sorts them for each gene
COLUMNS = (
    "layer", "gene", "log2_fold_change", "p", "p_adjusted", "share_layer", "share_rest", "sections", "unit", "units",
    "caveat",
)  # fmt: skip

OF_SPOTS = "one section: the spots were compared, which are neighbours and not independent, so p is far too small"
DRAWN = f"{MOST_SPOTS:,} spots drawn at random were compared"
ONE_PATIENT = "sections of one patient: p is too small, and says nothing of other patients"
FEW = "{units} units: after correction p can hardly be small"
MOST_FEW = 3
UNTESTED = "enough spots of this layer in one section alone: not tested"
DEPTH = "its spots have {times:.1f} times the counts of the rest, which a rank test takes for a difference"
MOST_TIMES = 4  # beyond which depth is another one: the limit of docs/trust.md
CIRCULAR = "the map read these genes: that tumour and other layers differ in some follows from how they were drawn"


@dataclass(frozen=True)
class Bulk:
    """The counts of the layers of a run in one section.

    genes : names; sums, counted : (layers x genes) summed counts, and how many spots count a gene; spots : (layers,)
    """

    section: str
    patient: str
    genes: object
    sums: np.ndarray
    counted: np.ndarray
    spots: np.ndarray


def bulk(spots, layer, patient: str) -> Bulk:
    """The sums of a section's counts by layer; `layer` is the Series of one run, see `layers.of_section`."""
    from scipy import sparse

    number = layer.map({name: place for place, name in enumerate(LAYERS)}).to_numpy(dtype=float)
    rows = np.flatnonzero(np.isfinite(number))
    shape = len(LAYERS), spots.n_obs
    member = sparse.csr_matrix((np.ones(len(rows)), (number[rows].astype(int), rows)), shape=shape)
    counts = sparse.csr_matrix(spots.X)
    counted = member @ (counts > 0).astype(np.float64)
    size, section = np.asarray(member.sum(axis=1)).ravel().astype(int), str(spots.uns["section"]["section"])
    return Bulk(section, patient, spots.var_names, (member @ counts).toarray(), counted.toarray(), size)


def differing(bulks: list[Bulk], tested=None, reads_genes: bool = True):
    """The genes of each layer that differ from the rest, at most `MOST_GENES` a layer, the clearest first.

    Parameters
    ----------
    bulks : of the sections of a run
    tested : of a run with one section, layer -> p of its genes, see `of_spots`; else None
    reads_genes : whether the run's method reads expression, which the caveat then says

    Returns
    -------
    frame of layer, gene, log2_fold_change (layer against rest, mean over units), p, p_adjusted (Benjamini and Hochberg
    over the genes tested in the layer), share_layer and share_rest (of the spots, those that count the gene), sections,
    unit (patient, section or spot), units (how many), caveat; without p where nothing could be tested
    """
    import pandas as pd

    shared = bulks[0].genes
    for other in bulks[1:]:
        shared = shared.intersection(other.genes, sort=False)
    columns = [one.genes.get_indexer(shared) for one in bulks]
    found = []
    for place, name in enumerate(LAYERS):
        sides = [_sides(one, at, place) for one, at in zip(bulks, columns, strict=True)]
        sides = [one for one in sides if one is not None]
        if sides:
            found.append(_of_layer(name, shared, sides, tested, reads_genes))
    columns = list(COLUMNS)
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def of_spots(spots, layer) -> dict:
    """Wilcoxon's rank sum test of every gene, each layer against the rest of its section: layer -> Series of p by gene.

    Only genes that enough spots count, in at most `MOST_SPOTS` spots; no layer with fewer than `LEAST_SPOTS`.
    """
    import anndata
    import pandas as pd
    import scanpy as sc

    rows = np.flatnonzero(layer.isin(LAYERS))
    if len(rows) > MOST_SPOTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_SPOTS, replace=False))
    own = layer.iloc[rows]
    sizes = own.value_counts()
    names = [name for name in LAYERS if LEAST_SPOTS <= sizes.get(name, 0) <= len(own) - LEAST_SPOTS]
    if not names:
        return {}
    values = log_normalise(spots.X)[rows]
    # a gene below the share in every layer is below it in every rest too
    counted = np.array(
        [np.asarray((values[(own == name).to_numpy()] > 0).mean(axis=0)).ravel() for name in sizes.index]
    )
    kept = np.flatnonzero((counted >= LEAST_SHARE).any(axis=0))
    groups = pd.DataFrame({"layer": pd.Categorical(own)}, index=own.index)
    table = anndata.AnnData(values[:, kept], obs=groups, var=pd.DataFrame(index=spots.var_names[kept]))
    sc.tl.rank_genes_groups(table, "layer", groups=names, reference="rest", method="wilcoxon", tie_correct=True)
    return {name: sc.get.rank_genes_groups_df(table, name).set_index("names")["pvals"] for name in names}


def log2_cpm(sums: np.ndarray) -> np.ndarray:
    """log2 of counts per million of pseudo-bulks (n x genes), 0.5 added to each count (voom; Law et al. 2014)."""
    return np.log2((sums + 0.5) / (sums.sum(axis=1, keepdims=True) + 1) * 1e6)


@dataclass(frozen=True)
class _Sides:
    """A layer and the rest of its section: sums and how many spots count a gene (2 x genes), and spots (2,)."""

    section: str
    patient: str
    sums: np.ndarray
    counted: np.ndarray
    spots: np.ndarray


def _sides(one: Bulk, columns: np.ndarray, place: int) -> _Sides | None:
    """None where the section has too few spots of the layer or of the rest."""
    is_layer = np.arange(len(LAYERS)) == place
    sums, counted, spots = (
        np.stack([of[is_layer].sum(axis=0), of[~is_layer].sum(axis=0)]) for of in (one.sums, one.counted, one.spots)
    )
    if spots.min() < LEAST_SPOTS:
        return None
    return _Sides(one.section, one.patient, sums[:, columns], counted[:, columns], spots)


def _of_layer(name: str, genes, sides: list[_Sides], tested, reads_genes: bool):
    import pandas as pd

    patients = {one.patient for one in sides}
    unit = "spot" if tested is not None else "patient" if len(patients) > 1 else "section"
    units: dict[str, np.ndarray] = {}
    for one in sides:
        key = one.patient if unit == "patient" else one.section
        units[key] = units.get(key, 0) + one.sums
    spots = sum(one.spots for one in sides)
    counted = sum(one.counted for one in sides)
    share = counted / spots[:, None]
    kept = np.flatnonzero((share >= LEAST_SHARE).any(axis=0) & (counted.sum(axis=0) >= LEAST_SPOTS))
    inside, rest = sum(one.sums.sum(axis=1) for one in sides) / spots
    times = inside / rest if rest else np.inf
    pairs = np.stack([log2_cpm(of) for of in units.values()])[:, :, kept]
    table = pd.DataFrame(
        {
            "layer": name,
            "gene": genes[kept],
            "log2_fold_change": (pairs[:, 0] - pairs[:, 1]).mean(axis=0),
            "p": _p(name, genes[kept], pairs, tested),
            "share_layer": share[0, kept],
            "share_rest": share[1, kept],
            "sections": len(sides),
            "unit": unit,
            "units": int(spots.sum()) if unit == "spot" else len(units),
            "caveat": "; ".join(_caveats(unit, len(units), int(spots.sum()), times, reads_genes)),
        }
    )
    table["p_adjusted"] = _adjusted(table["p"].to_numpy())
    return table.iloc[_order(table, pairs)[:MOST_GENES]]


def _order(table, pairs: np.ndarray) -> np.ndarray:
    """The clearest difference first: of spots the smallest p, without p the largest fold change.

    Of units it is the mean difference, divided by its standard error plus the 90th percentile of all genes' (Efron et
    al., Journal of the American Statistical Association 96:1151, 2001): with few units the smallest p are of genes that
    differ little, and by chance alike.
    """
    size = table["log2_fold_change"].abs().to_numpy()
    if table["unit"].iloc[0] == "spot" or len(pairs) < 2:
        return np.lexsort((-size, table["p"].to_numpy()))
    error = (pairs[:, 0] - pairs[:, 1]).std(axis=0, ddof=1) / np.sqrt(len(pairs))
    return np.argsort(-size / (error + np.percentile(error, DAMPING)), kind="stable")


def _p(name: str, genes, pairs: np.ndarray, tested) -> np.ndarray:
    from scipy import stats

    if tested is not None:
        return tested[name].reindex(genes).to_numpy() if name in tested else np.full(len(genes), np.nan)
    if len(pairs) < 2:
        return np.full(len(genes), np.nan)
    p = stats.ttest_rel(pairs[:, 0], pairs[:, 1], axis=0).pvalue
    return np.where(np.isnan(p), 1.0, p)  # every difference is 0


def _adjusted(p: np.ndarray) -> np.ndarray:
    from scipy import stats

    known = np.isfinite(p)
    result = np.full(len(p), np.nan)
    if known.any():
        result[known] = stats.false_discovery_control(p[known])
    return result


def _caveats(unit: str, units: int, spots: int, times: float, reads_genes: bool) -> list[str]:
    if unit == "spot":
        unlike = not 1 / MOST_TIMES <= times <= MOST_TIMES
        found = [OF_SPOTS, *[DRAWN] * (spots > MOST_SPOTS), *[DEPTH.format(times=times)] * unlike]
    elif units == 1:
        found = [UNTESTED]
    else:
        found = [ONE_PATIENT] * (unit == "section") + [FEW.format(units=units)] * (units <= MOST_FEW)
    return found + [CIRCULAR] * reads_genes
