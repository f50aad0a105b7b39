"""Names of genes: symbols wherever a table of genes has them, prefixes of genomes, and the species."""

import logging
import re
from collections import Counter

import numpy as np

from ctrflow.errors import InputError, first_few

logger = logging.getLogger(__name__)  # its messages are shown by the doctor

ENSEMBL = r"(?:ENS[A-Z]*G\d{6,}(?:\.\d+)?(?:_PAR_Y)?|FBgn\d{7}|WBGene\d{8})"  # flies and worms have ids of their own
# other ids than those of genes look like symbols: transcripts, proteins (UniProt's own pattern), bases of a probe
NO_SYMBOL = re.compile(
    rf"{ENSEMBL}|ENS[A-Z]*[TPRE]\d{{6,}}.*|[NXY][MRPCG]_\d+.*|[ACGTN]{{15,}}"
    r"|[OPQ]\d[A-Z\d]{3}\d(-\d+)?|[A-NR-Z]\d([A-Z][A-Z\d]{2}\d){1,2}(-\d+)?"
)
# what an index may have instead of symbols: also numbers (of rows, or Entrez's), ids of HGNC, MGI, TAIR, and probes
NUMBER = re.compile(r"\d+(\.0)?")
ID = re.compile(rf"{NO_SYMBOL.pattern}|{NUMBER.pattern}|(HGNC|MGI):\d+|AT[1-5MC]G\d{{5}}|ILMN_\d+|\d+_([a-z]_)?at")
SYMBOL = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][\w.@/()'*-]{0,39}")
BOTH = re.compile(rf"{ENSEMBL}[_|:;, -]+(?P<after>.+)|(?P<before>.+?)[_|:;, -]+\(?{ENSEMBL}\)?")
# of 10x, with the hash of its sequence; Seurat writes - for |
PROBE = re.compile(rf"(.+\||{ENSEMBL}-.+-)[0-9a-f]{{7}}")
# names of columns, best first, without what is neither letter nor number: scanpy, CELLxGENE, Seurat, biomaRt, Stereopy
COLUMNS = (
    "featurename", "genesymbols", "genesymbol", "genename", "genenames", "symbol", "symbols", "hgncsymbol",
    "externalgenename", "geneshortname", "realgenename", "mgisymbol", "name", "names", "features", "feature", "gene",
    "genes", "indexsymbol",
)  # fmt: skip
NO_COLUMN = re.compile("transcript|protein|uniprot|refseq|probe|alias|synonym|prev|former|old|ortholog|homolog|orig")
MISSING = {"", "nan", "na", "n/a", "none", "null", "<na>", "-", "."}
MOST = 0.9  # of the names carry a prefix, or both an id and a symbol
CONTRADICTED = 0.05  # of the names; symbols change with the release of the annotation
# assemblies of Ensembl and UCSC, and species; Seurat writes - for _, and 10x pads with _
HUMAN = r"GRCh\d+|hg\d+|human|homo_?sapiens|hsapiens|(?:t2t-?)?chm13"
OTHERS = (
    r"GRC[a-z]\d+|mm\d+|rn\d+|Rnor_?\d|mRatBN7|mouse|mus_?musculus|mmusculus|rat|rattus_?norvegicus|danRer\d+|galGal\d+"
    r"|susScr\d+|Sscrofa\d+|canFam\d+|ROS_Cfam_1|bosTau\d+|ARS-UCD\d|rheMac\d+|Mmul_\d+|macFas\d+|BDGP\d+|dm\d|ce\d+"
)
PREFIX = re.compile(
    rf"\A({HUMAN}|{OTHERS})(?:[.-](?:p\d+|\d{{4}}-[A-Z]|v?\d+(?:\.\d+)*))?(?:[_-]?pre-?mrna)?[_:-]+(?=.)", re.I
)


def symbols(var, path: str) -> list[str]:
    """The names of the genes of an AnnData, symbols if the file has them.

    What the index holds, unless most are ids; then the column whose values look like symbols, or the part of names that
    are made of both. A gene without a symbol keeps its id. What was taken from elsewhere than the index
    is logged, and a column of symbols that contradicts the index is a warning.

    Parameters
    ----------
    var : data frame, one row per gene
    path : of the file, for messages

    Raises
    ------
    InputError
        if the rows are probes, several of a gene.
    """
    names = [str(name) for name in var.index]
    texts = dict(_text_columns(var))
    if probes := next((some for some in (names, *texts.values()) if _share(some, PROBE) > MOST), None):
        raise InputError(
            f"{path}: counts of probes, such as {probes[0]}, several of a gene; give the matrix of genes "
            "(filtered_feature_bc_matrix), or sum the probes of each gene"
        )
    columns = {name: values for name, values in texts.items() if _is_like_symbols(values)}
    if both := _symbol_of_both(names):
        logger.info("%s: gene symbols from names of both id and symbol, such as %s", path, names[0])
        return both
    if _share(_without_prefix(names), ID) <= 0.5:
        _tell_contradiction(names, columns, path)
        return names
    column = _best(columns)
    if column is None and _share(names, NUMBER) > 0.5:
        column = next((name for name, values in texts.items() if _share(values, re.compile(ENSEMBL)) > 0.5), None)
    if column is not None:
        kind = "gene symbols" if column in columns else "Ensembl ids"
        logger.info("%s: %s from var['%s'], instead of %s", path, kind, column, names[0])
        return [value or name for value, name in zip(texts[column], names, strict=True)]
    if _share(_without_prefix(names), re.compile(ENSEMBL)) > 0.5:
        logger.info("%s: no column of var has symbols: genes are named by ids such as %s", path, names[0])
    return names


def of_one_species(names: list[str], path: str) -> tuple[np.ndarray, list[str]]:
    """The genes of one genome, without the prefix that a reference of several, or of one, puts before their names.

    Of two genomes, as in a xenograft, the human one is kept, since marker lists and models are of human genes; without
    it the one with the most genes.

    Returns
    -------
    (kept, plain): which of `names` are kept, bool, and the names of those that are; all as they are without a prefix
    """
    found = [PREFIX.match(name) for name in names]
    if sum(map(bool, found)) <= MOST * len(names):
        return np.ones(len(names), bool), list(names)
    genomes = [one[1] if one else "" for one in found]
    counts = Counter(filter(None, genomes)).most_common()
    human = [(genome, count) for genome, count in counts if re.fullmatch(HUMAN, genome, re.I)]
    chosen = (human or counts)[0][0]
    if len(counts) == 1:
        prefix = next(one[0] for one in found if one)
        logger.info("%s: the prefix %s of %s genes is left out", path, prefix, f"{counts[0][1]:,}")
    else:
        logger.warning(
            "%s: genes of %d genomes (%s): those of %s are kept%s, the others left out; if that is wrong, give a file "
            "of one species",
            path, len(counts), ", ".join(f"{genome}: {count:,}" for genome, count in counts), chosen,
            "" if human else ", which has the most, as none is human",
        )  # fmt: skip
    kept = np.array([genome in ("", chosen) for genome in genomes])
    return kept, [name[one.end() :] if one else name for name, one, own in zip(names, found, kept, strict=True) if own]


def species(names) -> str:
    """ "human" or "mouse", by how genes are written (ENSG or ENSMUSG, EPCAM or Epcam); "" if that says neither."""
    named = [name for name in _without_prefix(names) if re.search(r"[A-Za-z]{2}", name)]
    if not named:
        return ""
    ids = [name for name in named if re.fullmatch(ENSEMBL, name)]
    if len(ids) > 0.5 * len(named):
        written = (r"ENSG\d.*", r"ENSMUSG\d.*")
        named = ids
    else:
        written = (
            r"[A-Z0-9][A-Z0-9._@/-]*|C[\dXY]+orf\d+.*",
            r"([A-Z]|mt-[A-Z])[a-z0-9]*[a-z][A-Za-z0-9._-]*|\d+.*Rik",
        )
    shares = {kind: _share(named, re.compile(how)) for kind, how in zip(("human", "mouse"), written, strict=True)}
    return next((kind for kind, share in shares.items() if share > 0.5), "")


def _text_columns(var):
    """Name and values ("" where missing) of each column of text."""
    for place, name in enumerate(var.columns):
        column = var.iloc[:, place]
        if getattr(column.dtype, "kind", "O") not in "iufbcmM" and not NO_COLUMN.search(str(name).casefold()):
            texts = [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in column]
            yield name, ["" if text.strip().casefold() in MISSING else text.strip() for text in texts]


def _is_like_symbols(values: list[str]) -> bool:
    """Whether most values that are given, and no id, look like symbols, and few are repeated, as types would be."""
    given = [value for value in _without_prefix(values) if value and not re.fullmatch(ENSEMBL, value)]
    like = [value for value in given if SYMBOL.fullmatch(value) and not NO_SYMBOL.fullmatch(value)]
    return len(like) > 0.5 * len(given) and len(set(given)) > 0.5 * len(given)


def _stems(values: list[str]) -> bool:
    """Whether values begin with different letters, unlike numbered ones such as gene_0001 or ILMN_1343291."""
    stems = {re.match(r"\D*", value)[0] for value in _without_prefix(values)}
    return len(stems) > min(4, len(values) / 10)


def _best(columns: dict) -> str | None:
    """The column of symbols: by its name, else by what it holds."""
    plain = {name: re.sub(r"[^a-z0-9]", "", str(name).casefold()) for name in columns}
    known = sorted((COLUMNS.index(short), place) for place, short in enumerate(plain.values()) if short in COLUMNS)
    if known:
        return list(columns)[known[0][1]]
    found = [name for name, values in columns.items() if _stems(values) and sum(map(bool, values)) > 0.5 * len(values)]
    hints = ("symbol", "name", "gene", "")
    return next((name for hint in hints for name in found if hint in plain[name]), None)


def _symbol_of_both(names: list[str]) -> list[str]:
    """The symbols of names such as ENSG00000119888_EPCAM or EPCAM|ENSG00000119888; [] of other names."""
    plain = _without_prefix(names)
    found = [BOTH.fullmatch(name) for name in plain]
    if sum(map(bool, found)) <= MOST * len(names):
        return []
    symbols = [one["after"] or one["before"] if one else name for one, name in zip(found, plain, strict=True)]
    return [name.removesuffix(rest) + symbol for name, rest, symbol in zip(names, plain, symbols, strict=True)]


def _tell_contradiction(names: list[str], columns: dict, path: str) -> None:
    for column, values in columns.items():
        if not re.search("symbol|genename|featurename", re.sub(r"[^a-z]", "", str(column).casefold())):
            continue
        differ = [(name, value) for name, value in zip(names, values, strict=True) if value and not _same(name, value)]
        if len(differ) > CONTRADICTED * len(names):
            logger.warning(
                "%s: var['%s'] contradicts the names in var's index for %s of %s genes (%s in the index, %s in the "
                "column); the index is taken: correct it, or delete the column",
                path, column, f"{len(differ):,}", f"{len(names):,}",
                first_few([name for name, _ in differ], 3), first_few([value for _, value in differ], 3),
            )  # fmt: skip


def _same(name: str, value: str) -> bool:
    """Whether a name is a symbol, or that one made unique or written without _ by another tool."""
    name, value = (re.sub(r"[^A-Za-z0-9]+", "-", text) for text in (name, value))
    return name == value or re.fullmatch(rf"{re.escape(value)}-\d+", name) is not None


def _without_prefix(names) -> list[str]:
    """Names to be judged, without the prefix of a genome if half have one: a gene, DM1-AS, may begin like a genome."""
    plain = [PREFIX.sub("", name) for name in names]
    differ = sum(one != name for one, name in zip(plain, names, strict=True))
    return plain if differ > 0.5 * sum(map(bool, names)) else list(names)


def _share(values, pattern) -> float:
    return sum(bool(pattern.fullmatch(value)) for value in values) / max(len(values), 1)
