"""The tables of a fold: what a method gets of its training and target sections."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.features.blocks import AT_ONCE
from ctrflow.folds.genes import log_normalise, shared_genes, variable_genes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Sections(Mapping):
    """The training sections of a fold: section id -> AnnData of raw counts, obs, obsm, created on access.

    Only one section at a time is in memory if the tables leave X in their files
    (`storage.read_h5ad(path, with_x=False)`).

    spots, embeddings : as for `train_view`; the image features of a section without an embedding are NaN
    labels : section id -> (spots,) 1, 0, NaN; empty for training without labels
    genes : the genes to keep
    negatives : keep only the spots labelled 0, without the label
    """

    spots: dict
    embeddings: dict
    labels: dict
    genes: list[str]
    negatives: bool = False

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.spots if self.rows(name).any())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str):
        embedding, rows = self.embeddings.get(name), self.rows(name)
        table = _section_table(self.spots[name], embedding, name, self.genes)
        if embedding is None and self.embeddings:  # a section without a picture
            width = next(iter(self.embeddings.values())).n_vars
            table.obsm["image"] = np.full((table.n_obs, width), np.nan, np.float32)
        table.X.sort_indices()
        if self.labels and not self.negatives:
            table.obs["label"] = self.labels[name]
        table = table if rows.all() else table[rows].copy()
        table.uns |= {"encoder": _encoder_of(self.embeddings)} if self.embeddings else {}
        return table

    def rows(self, name: str) -> np.ndarray:
        """Which of a section's spots are used."""
        return self.labels[name] == 0 if self.negatives else np.ones(self.spots[name].n_obs, dtype=bool)


def train_view(spots: dict, embeddings: dict, labels: dict) -> Sections:
    """The training sections of a fold: raw counts of their shared genes, image features, labels.

    Parameters
    ----------
    spots : section id -> AnnData of the section contract; X may be left in its file
    embeddings : section id -> AnnData of the embeddings contract, likewise; empty if no encoder is used, without the
        sections that have no picture
    labels : section id -> label table (spot, label, region); empty for training without labels
    """
    known = {name: _labels_of(spots[name], labels[name], name) for name in spots} if labels else {}
    if labels:
        require_both_classes(np.concatenate(list(known.values())), ", ".join(spots))
    _encoder_of(embeddings)
    return Sections(spots, embeddings, known, _shared(spots))


def negatives(train: Sections) -> Sections:
    """The spots of labelled training sections whose label is 0, without the labels: a normal reference.

    Spots without a label are left out too, so that all neighbours are known to be normal.
    """
    kept = sum(int((values == 0).sum()) for values in train.labels.values())
    logger.info("normal reference: the %d spots labelled 0 of %d", kept, sum(map(len, train.labels.values())))
    return replace(train, negatives=True)


def with_patches(view, patches: dict):
    """Add obsm["patches"] to a view: uint8 (spots x px x px x 3), in the order of its spots.

    Parameters
    ----------
    patches : section id -> (spot ids, array of as many patches)

    Raises
    ------
    InputError
        if the spots of patches and view differ.
    """
    ordered = None
    names, sections = view.obs["spot"].to_numpy(), view.obs["section"].to_numpy()
    for section, (spots, pictures) in patches.items():
        if ordered is None:
            ordered = np.empty((view.n_obs, *pictures.shape[1:]), np.uint8)
        rows, place = np.flatnonzero(sections == section), {spot: i for i, spot in enumerate(spots)}
        if not set(names[rows]) <= place.keys():
            raise InputError(
                f"section {section}: patches and spots do not list the same spots; delete results/patches and rerun"
            )
        ordered[rows] = pictures[[place[name] for name in names[rows]]]
    view.obsm["patches"] = ordered
    return view


def require_both_classes(labels: np.ndarray, sections: str) -> None:
    """Raise an InputError if training labels are of one class only."""
    known = labels[~np.isnan(labels)]
    if len(np.unique(known)) < 2:
        classes = "no labelled spot" if len(known) == 0 else f"only {'cancer' if known[0] else 'non-cancer'} spots"
        raise InputError(
            f"training sections {sections}: {classes}; training needs spots of both classes: add a section with the "
            "other class to `source` of the study, or check the labels and the meaning of their words (label_words)"
        )


def target_view(spots: dict, embeddings: dict):
    """The target sections of a fold in one table of raw counts, without labels."""
    genes = _shared(spots)
    tables = (_section_table(table, embeddings.get(name), name, genes) for name, table in spots.items())
    view = together(tables)
    view.uns |= {"encoder": _encoder_of(embeddings)} if embeddings else {}
    return view


def measured(view, genes: list[str]):
    """A view restricted to those of `genes` that it measures, such as the genes of a model's library size.

    Raises
    ------
    InputError
        if it measures none of them.
    """
    known = set(view.var_names)
    present = [gene for gene in genes if gene in known]
    if not present:
        raise InputError(
            f"the sections {first_few(view.obs['section'].unique())} measure none of the model's genes "
            f"({first_few(genes, 3)}); use the same gene names (symbols or Ensembl ids)"
        )
    return view[:, present].copy()


def with_truth(target, labels: list):
    """Add obs["label"] to a target view: for the oracle, the only method that gets the truth."""
    import pandas as pd

    sections = list(dict.fromkeys(target.obs["section"]))
    truth = pd.concat(table.assign(section=name) for name, table in zip(sections, labels, strict=True))
    truth = truth.set_index(truth["section"] + "/" + truth["spot"])["label"].astype(float)
    target.obs["label"] = truth.reindex(target.obs_names).to_numpy()
    return target


def with_genes(view, genes: list[str]):
    """A view as methods get it: X log-normalised over all genes of the view, restricted to `genes`; counts in a layer.

    Genes that the view lacks are filled with zeros (a given model on a smaller panel).
    """
    import anndata
    from scipy import sparse

    present = [gene for gene in genes if gene in view.var_names]
    position = {gene: i for i, gene in enumerate(genes)}
    rows = view.var_names.get_indexer(present)
    columns = [position[gene] for gene in present]
    place = sparse.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(view.n_vars, len(genes)))
    return anndata.AnnData(
        sparse.csr_matrix(log_normalise(view.X) @ place),
        obs=view.obs.copy(),
        var=_gene_index(genes),
        obsm={key: np.asarray(value) for key, value in view.obsm.items()},
        layers={"counts": sparse.csr_matrix(view.X @ place)},
        uns=dict(view.uns),
    )


def in_pieces(tables: Iterable, genes: list[str]) -> Iterator:
    """`with_genes` of tables of raw counts, in pieces of at most `AT_ONCE` spots to save memory."""
    for table in tables:
        for start in range(0, table.n_obs, AT_ONCE):
            yield with_genes(table[start : start + AT_ONCE], genes)


def together(pieces: Iterable):
    """Stack the pieces of a table, in memory; uns is that of the first."""
    import anndata
    import pandas as pd
    from scipy import sparse

    pieces = list(pieces)
    first = pieces[0]
    return anndata.AnnData(
        sparse.vstack([piece.X for piece in pieces], format="csr"),
        obs=pd.concat([piece.obs for piece in pieces]),
        var=first.var,
        obsm={key: np.concatenate([piece.obsm[key] for piece in pieces]) for key in first.obsm},
        layers={key: sparse.vstack([piece.layers[key] for piece in pieces], format="csr") for key in first.layers},
        uns=first.uns,
    )


def build_views(
    train: Sections, target, n_genes: int, keep: list[str] = (), hvg_input: str = "counts", hvg_scope: str = "all"
) -> tuple[Iterator, Iterator]:
    """Training and target table of a method, in pieces: genes that both measure, ranked on the training sections.

    `hvg_input`, `hvg_scope`: see `genes.variable_genes`. Both tables are normalised over their shared genes, so that a
    panel of 300 genes and a whole transcriptome are comparable.
    """
    where = first_few(target.obs["section"].unique())
    common = shared_genes({f"{first_few(train)} (training)": train.genes, f"{where} (target)": target.var_names})
    train = replace(train, genes=common)
    genes = _chosen(train, n_genes, keep, hvg_input, hvg_scope)
    logger.info("%d target spots", target.n_obs)
    return _training_pieces(train, genes), in_pieces([target[:, common]], genes)


def build_train(
    train: Sections, n_genes: int, keep: list[str] = (), hvg_input: str = "counts", hvg_scope: str = "all"
) -> Iterator:
    """The training table of a method, in pieces: the most variable of the genes that its sections share."""
    return _training_pieces(train, _chosen(train, n_genes, keep, hvg_input, hvg_scope))


def _chosen(train: Sections, n_genes: int, *ranking) -> list[str]:
    genes = variable_genes(replace(train, embeddings={}), n_genes, *ranking)  # needs no image features
    spots = sum(int(train.rows(name).sum()) for name in train)
    logger.info("%d genes of %d shared; %d training spots", len(genes), len(train.genes), spots)
    return genes


def _training_pieces(train: Sections, genes: list[str]) -> Iterator:
    for piece in in_pieces(train.values(), genes):
        piece.uns["library_genes"] = np.array(train.genes, dtype=str)  # the genes of the library size
        yield piece


def _shared(spots: dict) -> list[str]:
    return shared_genes({name: table.var_names for name, table in spots.items()})


def _gene_index(genes):
    import pandas as pd

    return pd.DataFrame(index=pd.Index(genes, name=None))


def _section_table(spots, embedding, name: str, genes: list[str]):
    """A section as in views: raw counts of some genes, image features, positions; ids "section/spot".

    Raises
    ------
    InputError
        if spots and embedding do not list the same spots.
    """
    import anndata
    import pandas as pd
    from scipy import sparse

    counts = sparse.csr_matrix(spots.X[:])  # reads X if it was left in its file
    facts = {
        "section": name,
        "patient": spots.uns.get("section", {}).get("patient", name),
        "spot": spots.obs_names.astype(str),
        "total_counts": np.asarray(counts.sum(axis=1)).ravel(),
    }
    obsm = {"spatial": np.asarray(spots.obsm["spatial"])}
    if embedding is not None:
        _require_same_spots(spots, embedding, name)
        obsm["image"] = np.asarray(embedding.X[:], dtype=np.float32)
    obs = pd.DataFrame(facts)
    return anndata.AnnData(
        sparse.csr_matrix(counts[:, spots.var_names.get_indexer(genes)], dtype=np.float32),
        obs=obs.set_index(obs["section"] + "/" + obs["spot"]),
        var=_gene_index(genes),
        obsm=obsm,
    )


def _require_same_spots(spots, embedding, section: str) -> None:
    """Raise an InputError if an embedding is of other spots."""
    if list(embedding.obs_names) != list(spots.obs_names):
        raise InputError(
            f"section {section}: embedding and spots do not list the same spots; delete results/embeddings and rerun"
        )


def _encoder_of(embeddings: dict) -> dict:
    """The encoder of several sections' image features: digest, patch_px and all patch_um (widths x fields)."""
    facts = {name: embedding.uns["encoder"] for name, embedding in embeddings.items()}
    first = next(iter(facts), None)
    if first is None:
        return {}
    for name, other in facts.items():
        if any(other[key] != facts[first][key] for key in ("digest", "patch_px")):
            raise InputError(
                f"sections {first} and {name}: embedded by encoder {other['id']} with different weights or code; "
                "delete results/embeddings and rerun"
            )
    widths_um = sorted({tuple(map(float, other["patch_um"])) for other in facts.values()})
    return {key: facts[first][key] for key in ("digest", "patch_px")} | {"patch_um": np.array(widths_um)}


def _labels_of(adata, labels, section: str) -> np.ndarray:
    table = labels.set_index("spot")["label"].astype(float)
    if set(table.index) != set(adata.obs_names):
        raise InputError(
            f"section {section}: labels.tsv and spots.h5ad do not list the same spots; delete them and rerun"
        )
    return table.loc[adata.obs_names].to_numpy()
