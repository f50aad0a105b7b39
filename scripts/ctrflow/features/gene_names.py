"""Names of human genes: a section whose genes are named in another way than a model's."""

import logging
import re
import zlib
from collections import Counter
from itertools import takewhile
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few

logger = logging.getLogger(__name__)

COLUMNS = ("ensembl", "gene", "chromosome", "start", "end", "other")
IDS, SYMBOLS, NUMBERS = "Ensembl ids", "gene symbols", "Entrez numbers"
ONE_SPECIES = "use sections, models and marker lists of one species"
PATTERNS = {IDS: r"ENS[A-Z]*G\d{6,}(\.\d+)?(_PAR_Y)?", NUMBERS: r"\d+"}


def read(path: str | Path):
    """Read a table of genes, tab-separated; lines with # are comments.

    Returns
    -------
    pandas.DataFrame
        ensembl (without a version), gene (its symbol), chromosome, start, end (from 1, both included), other (what the
        gene was called before or since, separated by |); one row per id, while a symbol may have several

    Raises
    ------
    InputError
        if it is not such a table.
    """
    import pandas as pd

    types = dict.fromkeys(COLUMNS, str) | {"start": int, "end": int}
    try:
        # without keep_default_na an empty cell or a gene called NA would be a number
        return pd.read_csv(path, sep="\t", comment="#", usecols=list(COLUMNS), dtype=types, keep_default_na=False)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(
            f"{path}: not a table of genes with the columns {', '.join(COLUMNS)} ({str(error)[:120]}); get the file "
            "again from the release"
        ) from error


def kind(names) -> str:
    """The kind of most of some gene names: Ensembl ids, Entrez numbers, or gene symbols."""
    for found, pattern in PATTERNS.items():
        if np.mean([bool(re.fullmatch(pattern, name)) for name in names]) > 0.5:
            return found
    return SYMBOLS


def unlike(ours, theirs, us: str, them: str) -> str:
    """Why two lists of gene names have few in common, with the cure; "" if their names do not tell.

    Parameters
    ----------
    ours, theirs : gene names
    us, them : what has them, for the message
    """
    kinds = {us: kind(ours), them: kind(theirs)}
    examples = {us: first_few(list(ours)[:3]), them: first_few(list(theirs)[:3])}
    if kinds[us] != kinds[them]:
        other = them if kinds[us] == SYMBOLS else us
        return (
            f"{kinds[us]} in {us} ({examples[us]}), {kinds[them]} in {them} ({examples[them]}): give {other} gene "
            "symbols too (in an .h5ad as var_names or in a column gene_symbols of var, in a table of counts as the "
            "names of its genes)"
        )
    shown = f"{us} ({examples[us]}) and {them} ({examples[them]})"
    if kinds[us] == IDS and len(found := {_animal(ours), _animal(theirs)}) == 2:
        return f"Ensembl ids of two species ({', '.join(sorted(found))}) in {shown}: {ONE_SPECIES}"
    for what, cure, plain in (
        ("in their version number", "leave it out of both", lambda name: re.sub(r"\.\d+$", "", name)),
        ("in upper and lower case, as of human and mouse,", ONE_SPECIES, str.upper),
        *((f"by the beginning {start}", "leave it out", _without(start)) for start in _beginnings(ours, theirs)),
    ):
        known, own = set(map(plain, ours)), set(map(plain, theirs))
        if len(known & own) > 0.5 * min(len(known), len(own)):
            return f"names differ {what} in {shown}: {cure}"
    return ""


def _animal(names) -> str:
    """The species in most of some Ensembl ids, such as ENSG and ENSMUSG."""
    return Counter(re.match(r"ENS[A-Z]*G|", name)[0] for name in names).most_common(1)[0][0]


def _beginnings(*lists) -> list[str]:
    """What all names of a list begin with, up to a _, : or -."""
    pairs = [zip(min(names), max(names), strict=False) for names in lists]
    common = ["".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], both)) for both in pairs]
    return [found[0] for found in (re.match(r".*[_:-]", text) for text in common) if found]


def _without(start: str):
    return lambda name: name.removeprefix(start)


def translated(view, section: str, model_names: list[str], table):
    """A section with its genes named as in a model, where one has symbols and the other Ensembl ids, or both symbols.

    A gene that the model knows by a former or later symbol gets that one. What the table does not have keeps its name,
    such as the genes of another species. Counts of several ids with one symbol are summed: which of them comes first in
    a file means nothing, and it is often the one without counts.

    Parameters
    ----------
    view : AnnData of raw counts
    section : its id, for the log
    model_names : all genes that the model knows, of one kind
    table : as `read` gives it
    """
    ours, theirs = kind(model_names), kind(view.var_names)
    if {ours, theirs} not in ({IDS, SYMBOLS}, {SYMBOLS}):
        return view
    if ours == theirs:
        known, what = _other_symbols(table, model_names, view.var_names), "another symbol in the model"
    elif theirs == IDS:
        known, what = _symbols(table, model_names), "a symbol"
    else:
        known, what = _ids(table, model_names), "an Ensembl id"
    names = [known.get(_without_version(name), name) for name in view.var_names]
    found = sum(name != old for name, old in zip(names, view.var_names, strict=True))
    if not found:
        return view
    logger.info("section %s: %s of its %s %s have %s", section, f"{found:,}", f"{len(names):,}", theirs, what)
    return _renamed(view, names)


def _without_version(name: str) -> str:
    return name.partition(".")[0] if re.fullmatch(PATTERNS[IDS], name) else name


def _names(table) -> list[tuple[str, list[str]]]:
    """(Ensembl id, today's symbol and then others) of each gene."""
    columns = zip(table["ensembl"], table["gene"], table["other"], strict=True)
    return [(ensembl, [gene, *filter(None, other.split("|"))]) for ensembl, gene, other in columns]


def _symbols(table, model_names: list[str]) -> dict[str, str]:
    """Ensembl id -> the symbol that the model has, else today's."""
    wanted = set(model_names)
    return {ensembl: next((name for name in names if name in wanted), names[0]) for ensembl, names in _names(table)}


def _other_symbols(table, model_names: list[str], section_names) -> dict[str, str]:
    """Symbol of the section -> what the model calls the gene, for genes that it has under no name of the model."""
    wanted, measured, known = set(model_names), set(section_names), {}
    for _, names in _names(table):
        ours = next((name for name in names if name in wanted), None)
        theirs = next((name for name in names if name in measured and name not in wanted), None)
        if ours and theirs and ours not in measured:
            known[theirs] = ours
    return known


def _ids(table, model_names: list[str]) -> dict[str, str]:
    """Symbol -> the Ensembl id as the model spells it, else without version; of several ids one that the model has."""
    spelt = {_without_version(name): name for name in model_names}
    known: dict[str, str] = {}
    for ensembl, names in sorted(_names(table), key=lambda row: row[0] not in spelt):
        for name in names:
            known.setdefault(name, spelt.get(ensembl, ensembl))
    return known


def _renamed(view, names: list[str]):
    """A view with other gene names; columns that get the same name are summed."""
    import anndata
    import pandas as pd
    from scipy import sparse

    columns, genes = pd.factorize(np.array(names, dtype=object))
    ones = np.ones(len(columns), dtype=np.float32)
    place = sparse.csr_matrix((ones, (np.arange(len(columns)), columns)), shape=(len(columns), len(genes)))
    return anndata.AnnData(
        sparse.csr_matrix(view.X @ place),
        obs=view.obs.copy(),
        var=pd.DataFrame(index=pd.Index(genes, dtype=str)),
        obsm={key: np.asarray(value) for key, value in view.obsm.items()},
        uns=dict(view.uns),
    )
