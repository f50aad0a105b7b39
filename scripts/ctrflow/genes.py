"""Which genes a fold works with: chosen on training sections only (METHODS.md S-12, S-13, S-14)."""

import logging
import warnings

import numpy as np

from ctrflow.errors import InputError, first_few

logger = logging.getLogger(__name__)

LIBRARY_SIZE = 10_000  # counts per spot after normalisation, SpaCRD S4.2
SPANS = (0.3, 0.5, 0.7, 1.0)  # of the loess, scanpy's default first
MIN_SPOTS = 10  # a gene seen in fewer training spots has no variance worth ranking and breaks the loess fit


def shared_genes(sections: dict) -> list[str]:
    """The genes that every section measures, sorted.

    Parameters
    ----------
    sections : section id -> AnnData

    Raises
    ------
    InputError
        when there is none, quoting gene names of two sections that do not meet.
    """
    common: set[str] | None = None
    for name, adata in sections.items():
        genes = set(adata.var_names)
        if common is not None and not common & genes:
            first = next(iter(sections))
            ours, theirs = first_few(sections[first].var_names, 3), first_few(adata.var_names, 3)
            raise InputError(
                f"sections {first} and {name} have no gene in common ({ours} against {theirs}): "
                "give both the same gene names (symbols or Ensembl ids)"
            )
        common = genes if common is None else common & genes
    return sorted(common or ())


def variable_genes(
    train, n_genes: int, keep: list[str] = (), hvg_input: str = "counts", hvg_scope: str = "all"
) -> list[str]:
    """The `n_genes` most variable genes of the training sections, sorted by name.

    seurat_v3 with the section as batch. Fewer genes than asked is fine: all are taken and it is said.

    Parameters
    ----------
    train : AnnData of raw counts, obs["section"]
    keep : genes that stay whatever the ranking says (markers)
    hvg_input : `counts`, as seurat_v3 asks for, or `log`: the log-normalised values, as the published code ranks (S-12)
    hvg_scope : `all` training sections, or the `first` alone, as the published code does (S-13). That code's first
        section is the first of the cohort even where it is the target; here it is always one that is trained on.
    """
    import anndata
    import scanpy as sc

    if hvg_scope == "first":
        first = train.obs["section"].iloc[0]
        train = train[(train.obs["section"] == first).to_numpy()]
        logger.info("genes are ranked on section %s alone", first)
    seen = np.asarray((train.X > 0).sum(axis=0)).ravel() >= MIN_SPOTS
    candidates = train.var_names[seen]
    if len(candidates) == 0:
        raise InputError(f"no gene is seen in {MIN_SPOTS} training spots: the counts are too sparse to train on")
    if len(candidates) <= n_genes:
        logger.info(
            "%d genes are shared and seen in %d spots: all are used (%d asked)", len(candidates), MIN_SPOTS, n_genes
        )
        chosen = set(candidates)
    else:
        ranked = train
        if hvg_input == "log":
            ranked = anndata.AnnData(log_normalise(train.X), obs=train.obs[["section"]], var=train.var[[]])
        chosen = set(_seurat_v3(ranked[:, candidates], n_genes, sc))
    return sorted(chosen | (set(keep) & set(train.var_names)))


def _seurat_v3(train, n_genes: int, sc):
    """The most variable genes by scanpy's seurat_v3; its loess gets wider where a section has too few spots for it."""
    table = None
    for span in SPANS:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*expects raw count data.*")
                table = sc.pp.highly_variable_genes(
                    _with_batch(train),
                    flavor="seurat_v3",
                    n_top_genes=n_genes,
                    batch_key="batch",
                    span=span,
                    inplace=False,
                )
            break
        except ValueError as error:  # what scikit-misc raises when a neighbourhood of the loess is singular
            logger.warning("the loess of seurat_v3 fails with span %s (%s)", span, str(error)[:80])
    if table is None:
        counts = train.obs["section"].value_counts()
        raise InputError(
            f"genes cannot be ranked: too few spots or counts in the training sections ({counts.to_dict()} spots); "
            "leave the smallest section out of `source`, or ask for as many genes as there are (n_genes)"
        )
    n_sections = train.obs["section"].nunique()
    logger.info("seurat_v3 on %d section%s, span %s", n_sections, "s" * (n_sections > 1), span)
    return train.var_names[table["highly_variable"].to_numpy()]


def _with_batch(train):
    import anndata
    import pandas as pd

    batches = pd.Categorical(train.obs["section"].astype(str))
    return anndata.AnnData(train.X, obs=pd.DataFrame({"batch": batches}, index=train.obs_names), var=train.var[[]])


def log_normalise(counts):
    """Counts scaled to 10,000 per spot, log1p, float32 CSR; a spot without counts stays zero."""
    from scipy import sparse

    counts = sparse.csr_matrix(counts, dtype=np.float64)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    scaled = sparse.diags(LIBRARY_SIZE / np.maximum(totals, 1)) @ counts
    return scaled.log1p().astype(np.float32).tocsr()
