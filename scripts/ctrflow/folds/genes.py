"""Gene selection of a fold, on its training sections only (METHODS.md S-12, S-13, S-14)."""

import logging
import warnings

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.features import gene_names

logger = logging.getLogger(__name__)

LIBRARY_SIZE = 10_000  # counts per spot after normalisation, SpaCRD S4.2
SPANS = (0.3, 0.5, 0.7, 1.0)  # of the loess, scanpy's default first
MIN_SPOTS = 10  # genes in fewer training spots have no meaningful variance and break the loess fit


def shared_genes(sections: dict) -> list[str]:
    """The genes that every section measures, sorted.

    Parameters
    ----------
    sections : section id -> gene names

    Raises
    ------
    InputError
        if there is none, quoting gene names of two sections without a common gene.
    """
    common: set[str] | None = None
    for name, names in sections.items():
        genes = set(names)
        if common is not None and not common & genes:
            first = next((other for other, own in sections.items() if not genes & set(own)), next(iter(sections)))
            ours = sections[first]
            why = gene_names.unlike(ours, names, first, name) or (
                f"{first_few(ours, 3)} against {first_few(names, 3)}: use the same gene names in both, symbols best"
            )
            raise InputError(f"sections {first} and {name} have no gene in common; {why}")
        common = genes if common is None else common & genes
    return sorted(common or ())


def variable_genes(
    train, n_genes: int, keep: list[str] = (), hvg_input: str = "counts", hvg_scope: str = "all"
) -> list[str]:
    """The `n_genes` most variable genes of the training sections, sorted by name.

    seurat_v3 with the section as batch. If there are fewer genes than requested, all are used.

    Parameters
    ----------
    train : mapping of section id -> AnnData of raw counts, all with the same genes; each is read up to three times
    keep : genes to keep whatever their rank (markers)
    hvg_input : `counts`, as seurat_v3 expects, or `log`: log-normalised values, as in the published code (S-12)
    hvg_scope : `all` training sections, or only the `first`, as in the published code (S-13). That code uses the first
        section of the cohort even if it is the target; here it is always a training section.
    """
    sections = list(train)
    if hvg_scope == "first":
        sections = sections[:1]
        logger.info("genes are ranked on section %s only", sections[0])
    seen, names = 0, None
    for section in sections:
        table = train[section]
        names = table.var_names
        seen = seen + np.asarray((table.X > 0).sum(axis=0)).ravel()
    rows = np.flatnonzero(seen >= MIN_SPOTS)
    candidates = names[rows]
    if len(candidates) == 0:
        raise InputError(
            f"no gene has counts in {MIN_SPOTS} training spots: the counts are too sparse to train on; check them, or "
            "add sections to `source`"
        )
    if len(candidates) <= n_genes:
        logger.info(
            "using all %d shared genes with counts in %d spots (%d requested)", len(candidates), MIN_SPOTS, n_genes
        )
        chosen = set(candidates)
    else:
        chosen = set(candidates[_most_variable(train, sections, rows, n_genes, hvg_input)])
    return sorted(chosen | (set(keep) & set(names)))


def _most_variable(train, sections: list[str], columns: np.ndarray, n_genes: int, hvg_input: str) -> np.ndarray:
    """The most variable of the `columns`, by scanpy's seurat_v3; the loess span is widened if a section is too small.

    scanpy ranks section by section, so sections are passed one at a time, and ranks are combined here.
    """
    for span in SPANS:
        try:
            variances = [_variances(train[name], columns, hvg_input, span) for name in sections]
        except ValueError as error:  # from scikit-misc if a loess neighbourhood is singular
            logger.warning("the loess of seurat_v3 fails with span %s (%s); trying wider", span, str(error)[:80])
            continue
        logger.info("seurat_v3 on %d section%s, span %s", len(sections), "s" * (len(sections) > 1), span)
        return _ranked(np.array(variances), n_genes)
    counts = {name: train[name].n_obs for name in sections}
    raise InputError(
        f"genes cannot be ranked: too few spots or counts in the training sections ({counts} spots); "
        "leave the smallest section out of `source`, or set n_genes to the number of genes, so that none is left out"
    )


def _variances(table, columns: np.ndarray, hvg_input: str, span: float) -> np.ndarray:
    """The normalised variance of some genes in one section."""
    import anndata
    import scanpy as sc

    values = (log_normalise(table.X) if hvg_input == "log" else table.X)[:, columns]
    own = anndata.AnnData(values, obs=table.obs[[]], var=table.var.iloc[columns][[]])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*expects raw count data.*")
        table = sc.pp.highly_variable_genes(own, flavor="seurat_v3", n_top_genes=len(columns), span=span, inplace=False)
    return table["variances_norm"].to_numpy()


def _ranked(variances: np.ndarray, n_genes: int) -> np.ndarray:
    """The columns of `variances` (sections x genes) with the best median rank, ties by the number of sections.

    Ranks beyond `n_genes` are ignored: SelectIntegrationFeatures of Seurat v3, as in scanpy.
    """
    import pandas as pd

    ranks = np.argsort(np.argsort(-variances, axis=1), axis=1).astype(np.float32)
    ranks[ranks >= n_genes] = np.nan
    median = np.ma.median(np.ma.masked_invalid(ranks), axis=0).filled(np.nan)
    table = pd.DataFrame({"rank": median, "sections": (~np.isnan(ranks)).sum(axis=0)})
    order = table.sort_values(["rank", "sections"], ascending=[True, False], na_position="last").index
    return np.sort(order[:n_genes].to_numpy())


def log_normalise(counts):
    """Counts scaled to 10,000 per spot, log1p, float32 CSR; a spot without counts stays zero."""
    from scipy import sparse

    counts = sparse.csr_matrix(counts, dtype=np.float64)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    scaled = sparse.diags(LIBRARY_SIZE / np.maximum(totals, 1)) @ counts
    return scaled.log1p().astype(np.float32).tocsr()
