"""Which sections a method trains on and which it is measured on, and the tables it gets to see."""

import ast
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.genes import log_normalise, shared_genes, variable_genes
from ctrflow.views import AT_ONCE

logger = logging.getLogger(__name__)

# all that a query over the sheet is made of
QUERY = (
    ast.Expression, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.Not, ast.Invert, ast.BinOp, ast.BitAnd, ast.BitOr,
    ast.Compare, ast.cmpop, ast.Name, ast.Constant, ast.List, ast.Tuple, ast.Load,
)  # fmt: skip
TEXT_TESTS = ("contains", "startswith", "endswith")
SOURCE_NEGATIVES = "source_negatives"  # what `normal` of a task says where no healthy section exists


@dataclass(frozen=True)
class Fold:
    """One training set and the sections it is measured on; section ids.

    `normals` are the sections of the normal reference; with `negatives` they are the sources, of which the spots
    labelled 0 alone are taken.
    """

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    normals: tuple[str, ...] = ()
    negatives: bool = False

    def learned(self, view: str) -> tuple[str, ...]:
        """The sections whose spots a view's training table has: `labelled`, `normal`, or none of the others."""
        return {"labelled": self.sources, "normal": self.normals}.get(view, ())

    def labelled(self, view: str) -> tuple[str, ...]:
        """Those whose labels its training table is made with: none where the normal reference are healthy sections."""
        return () if view == "normal" and not self.negatives else self.learned(view)


def select(sheet, query: str, where: str):
    """The rows of the section sheet that a query picks, in the order of the sheet.

    Raises
    ------
    InputError
        when the query cannot be read or picks nothing; `where` says which key of which file it stands in.
    """
    try:
        rows = sheet[_picked(sheet, query.strip())]
    except (
        ArithmeticError, AttributeError, LookupError, MemoryError, NameError, RuntimeError, SyntaxError, TypeError,
        ValueError, re.error,
    ) as error:  # fmt: skip
        raise InputError(
            f"{where}: `{query[:200]}` is not a query over the section sheet ({error}); columns: "
            f"{', '.join(sheet.columns)}"
        ) from error
    if rows.empty:
        raise InputError(
            f"{where}: `{query}` picks no section of the sheet; cohorts: {first_few(sorted(set(sheet.cohort)), 20)}"
        )
    return rows


def _picked(sheet, query: str):
    """Which rows a query picks; it may only compare: pandas would call any method of a column, `to_csv` among them."""
    how = f"compare columns by ==, !=, in, and, or, not, or by .str.{', .str.'.join(TEXT_TESTS)}"
    if not _is_plain(ast.parse(query, mode="eval")):
        raise ValueError(how)
    picked = np.asarray(sheet.eval(query, engine="python"))
    if picked.dtype != bool or picked.shape != (len(sheet),):
        raise ValueError(how)
    return picked


def _is_plain(node: ast.AST) -> bool:
    """Whether a query is made of comparisons of columns with values alone."""
    if isinstance(node, ast.Call):
        return re.fullmatch(rf"\w+\.str\.({'|'.join(TEXT_TESTS)})", ast.unparse(node.func)) is not None and all(
            isinstance(value, ast.Constant) for value in [*node.args, *(word.value for word in node.keywords)]
        )
    return isinstance(node, QUERY) and all(map(_is_plain, ast.iter_child_nodes(node)))


def make_folds(task: dict, sheet, where: str = "study") -> list[Fold]:
    """The folds of a task.

    Parameters
    ----------
    task : `name`, `split`, and the queries `source`, `target` (default: the sources), `normal` (default: none; or
        `source_negatives`)
    sheet : the section sheet, one row a section
    where : file the task stands in, for messages

    No section of a target's patient is ever trained on, whatever the split.
    """
    where = f"{where}: task {task['name']}"
    split = task["split"]
    if split == "pretrained":
        if not task.get("target"):
            raise InputError(f"{where}: split `pretrained` needs a `target` query: which sections shall be scored?")
        targets = select(sheet, task["target"], f"{where}: target")
        return [Fold(row.section, (), (row.section,)) for row in targets.itertuples()]

    sources, normals = _trained_on(task, sheet, where)
    if split == "transfer" and not task.get("target"):
        raise InputError(f"{where}: split `transfer` needs a `target` query: which sections shall be scored?")
    targets = select(sheet, task["target"], f"{where}: target") if task.get("target") else sources
    if split == "leave_one_patient_out":
        groups = dict(list(targets.groupby("patient", sort=False)))
    else:
        groups = {row.section: targets[targets.section == row.section] for row in targets.itertuples()}

    folds = []
    for name, group in groups.items():
        train = sources[~sources.patient.isin(group.patient)]
        if train.empty and len(sources):
            raise InputError(
                f"{where}: nothing is left to train on for {name}: every source section is of the same patient; add "
                "sections of other patients, or fill the column patient"
            )
        healthy = tuple(normals.section[~normals.patient.isin(group.patient)])
        if not (len(train) or healthy):
            raise InputError(
                f"{where}: no normal section is left for {name}: all are of the same patient; name others under "
                "`normal`"
            )
        folds.append(Fold(str(name), tuple(train.section), tuple(group.section), healthy, _negatives(task)))
    return folds


def whole_fold(task: dict, sheet, where: str = "study") -> Fold:
    """All that a task can train on and no target: for a model that is to score sections yet unknown."""
    sources, normals = _trained_on(task, sheet, f"{where}: task {task['name']}")
    return Fold("", tuple(sources.section), (), tuple(normals.section), _negatives(task))


def _negatives(task: dict) -> bool:
    return task.get("normal") == SOURCE_NEGATIVES


def _trained_on(task: dict, sheet, where: str) -> tuple:
    """The labelled source sections and the normal sections of a task: two parts of the sheet."""
    healthy = task.get("normal") if not _negatives(task) else None
    if not task.get("source") and not (task["split"] == "transfer" and healthy):
        split = task["split"]
        raise InputError(f"{where}: split `{split}` needs a `source` query: which sections shall be trained on?")
    sources = select(sheet, task["source"], f"{where}: source") if task.get("source") else sheet.iloc[:0]
    unlabelled = sources.section[sources.labels == ""]
    if len(unlabelled):
        raise InputError(
            f"{where}: source sections without labels: {first_few(unlabelled)}; fill the column labels of the sheet, "
            "or leave them out of `source`"
        )
    if _negatives(task):
        return sources, sources
    normals = select(sheet, healthy, f"{where}: normal") if healthy else sheet.iloc[:0]
    return sources, normals


@dataclass(frozen=True, eq=False)
class Sections(Mapping):
    """The sections that a fold trains on: section id -> AnnData of raw counts, obs, obsm, as it is asked for.

    A section is cut from its own table each time, so that one at a time is in memory where tables leave X in their file
    (`storage.read_h5ad(path, with_x=False)`).

    spots, embeddings : as `train_view` takes them
    labels : section id -> (spots,) 1, 0, NaN; empty for training without labels
    genes : what each section is cut to
    negatives : of the spots those labelled 0 alone, without the label
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
        table, rows = _section_table(self.spots[name], self.embeddings.get(name), name, self.genes), self.rows(name)
        table.X.sort_indices()
        if self.labels and not self.negatives:
            table.obs["label"] = self.labels[name]
        table = table if rows.all() else table[rows].copy()
        table.uns |= {"encoder": _encoder_of(self.embeddings)} if self.embeddings else {}
        return table

    def rows(self, name: str) -> np.ndarray:
        """Which of a section's spots are taken."""
        return self.labels[name] == 0 if self.negatives else np.ones(self.spots[name].n_obs, dtype=bool)


def train_view(spots: dict, embeddings: dict, labels: dict) -> Sections:
    """The training sections of a fold: raw counts of their shared genes, image features, labels.

    Parameters
    ----------
    spots : section id -> AnnData of the section contract; X may lie in its file
    embeddings : section id -> AnnData of the embeddings contract, likewise; empty when no encoder is used
    labels : section id -> label table (spot, label, region); empty for training without labels
    """
    known = {name: _labels_of(spots[name], labels[name], name) for name in spots} if labels else {}
    if labels:
        require_both_classes(np.concatenate(list(known.values())), ", ".join(spots))
    _encoder_of(embeddings)
    return Sections(spots, embeddings, known, _shared(spots))


def negatives(train: Sections) -> Sections:
    """The spots of labelled training sections whose label is 0, without the labels: a normal reference.

    Spots without a label are left out with the cancer. So no spot keeps a neighbour that is not known to be normal.
    """
    found = replace(train, negatives=True)
    kept = sum(int((values == 0).sum()) for values in train.labels.values())
    logger.info("normal reference: the %d spots labelled 0 of %d", kept, sum(map(len, train.labels.values())))
    return found


def with_patches(view, patches: dict):
    """A view with obsm["patches"]: uint8 (spots x px x px x 3), the pictures of its spots in its order.

    Parameters
    ----------
    patches : section id -> (spot ids, array of as many patches)

    Raises
    ------
    InputError
        when a section's patches are not of its spots.
    """
    found = None
    names, sections = view.obs["spot"].to_numpy(), view.obs["section"].to_numpy()
    for section, (spots, pictures) in patches.items():
        if found is None:
            found = np.empty((view.n_obs, *pictures.shape[1:]), np.uint8)
        rows, place = np.flatnonzero(sections == section), {spot: i for i, spot in enumerate(spots)}
        if not set(names[rows]) <= place.keys():
            raise InputError(
                f"section {section}: patches and spots do not list the same spots; delete results/patches and rerun"
            )
        found[rows] = pictures[[place[name] for name in names[rows]]]
    view.obsm["patches"] = found
    return view


def require_both_classes(labels: np.ndarray, sections: str) -> None:
    """Refuse training labels of one class only."""
    known = labels[~np.isnan(labels)]
    if len(np.unique(known)) < 2:
        found = "no labelled spot" if len(known) == 0 else f"only {'cancer' if known[0] else 'non-cancer'} spots"
        raise InputError(
            f"training sections {sections}: {found}; training needs spots of both classes: add a section with the "
            "other to `source` of the study, or check the labels and what their words mean (label_words)"
        )


def target_view(spots: dict, embeddings: dict):
    """The target sections of a fold in one table of raw counts; never a label."""
    genes = _shared(spots)
    tables = (_section_table(table, embeddings.get(name), name, genes) for name, table in spots.items())
    view = together(tables)
    view.uns |= {"encoder": _encoder_of(embeddings)} if embeddings else {}
    return view


def measured(view, genes: list[str]):
    """A view cut to those of `genes` that it measures: a model keeps the genes that its library size was taken over.

    Raises
    ------
    InputError
        when it measures none of them.
    """
    known = set(view.var_names)
    present = [gene for gene in genes if gene in known]
    if not present:
        raise InputError(
            f"the sections {first_few(view.obs['section'].unique())} measure none of the model's genes "
            f"({first_few(genes, 3)}); give both the same gene names (symbols or Ensembl ids)"
        )
    return view[:, present].copy()


def with_truth(target, labels: list):
    """A target view with obs["label"]: for the oracle, which alone is handed the truth."""
    import pandas as pd

    sections = list(dict.fromkeys(target.obs["section"]))
    truth = pd.concat(table.assign(section=name) for name, table in zip(sections, labels, strict=True))
    truth = truth.set_index(truth["section"] + "/" + truth["spot"])["label"].astype(float)
    target.obs["label"] = truth.reindex(target.obs_names).to_numpy()
    return target


def with_genes(view, genes: list[str]):
    """A view as methods see it: X log-normalised over all genes of the view then cut to `genes`, counts in a layer.

    A gene that the view lacks is filled with zeros (a given model on a smaller panel).
    """
    import anndata
    from scipy import sparse

    present = [gene for gene in genes if gene in view.var_names]
    if len(present) < len(genes):
        logger.warning(
            "%d of the model's %d genes are not measured here and are set to 0", len(genes) - len(present), len(genes)
        )
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
    """`with_genes` of tables of raw counts, spots upon spots: what it takes in memory is that of `AT_ONCE` spots."""
    for table in tables:
        for start in range(0, table.n_obs, AT_ONCE):
            yield with_genes(table[start : start + AT_ONCE], genes)


def together(pieces: Iterable):
    """Pieces of a table upon each other, in memory; what is in uns is that of the first."""
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
    """The pair a method sees, in pieces: genes are those both measure, ranked on the training sections alone.

    `hvg_input` and `hvg_scope` say on what values and sections, see `genes.variable_genes`.
    Both are normalised over their shared genes, so that a panel of 300 genes and a whole transcriptome meet.
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
    """The training table of a method, in pieces: the genes ranked highest of all that its sections share."""
    return _training_pieces(train, _chosen(train, n_genes, keep, hvg_input, hvg_scope))


def _chosen(train: Sections, n_genes: int, *ranking) -> list[str]:
    genes = variable_genes(replace(train, embeddings={}), n_genes, *ranking)  # which reads no image
    spots = sum(int(train.rows(name).sum()) for name in train)
    logger.info("%d genes of %d shared; %d training spots", len(genes), len(train.genes), spots)
    return genes


def _training_pieces(train: Sections, genes: list[str]) -> Iterator:
    for piece in in_pieces(train.values(), genes):
        piece.uns["library_genes"] = np.array(train.genes, dtype=str)  # what the library size was taken over
        yield piece


def _shared(spots: dict) -> list[str]:
    return shared_genes({name: table.var_names for name, table in spots.items()})


def _gene_index(genes):
    import pandas as pd

    return pd.DataFrame(index=pd.Index(genes, name=None))


def _section_table(spots, embedding, name: str, genes: list[str]):
    """A section as views hold it: raw counts of some genes, image features, where its spots lie; ids "section/spot".

    Raises
    ------
    InputError
        when spots and embedding are not of the same spots.
    """
    import anndata
    import pandas as pd
    from scipy import sparse

    counts = sparse.csr_matrix(spots.X[:])  # off the file, where it lies there
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
    """Refuse an embedding of other spots."""
    if list(embedding.obs_names) != list(spots.obs_names):
        raise InputError(
            f"section {section}: embedding and spots do not list the same spots; delete results/embeddings and rerun"
        )


def _encoder_of(embeddings: dict) -> dict:
    """What made the image features of several sections: digest, patch_px and all patch_um (widths x fields)."""
    facts = {name: embedding.uns["encoder"] for name, embedding in embeddings.items()}
    first = next(iter(facts), None)
    if first is None:
        return {}
    for name, other in facts.items():
        if any(other[key] != facts[first][key] for key in ("digest", "patch_px")):
            raise InputError(
                f"sections {first} and {name}: encoder {other['id']} had other weights or code when it embedded the "
                "second; delete results/embeddings and rerun"
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
