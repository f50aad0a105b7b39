"""Names of genes: where a table of genes has symbols, prefixes of genomes, and species."""

import logging
import re

import numpy as np
import pandas as pd
import pytest

from ctrflow.errors import InputError
from ctrflow.features import gene_names
from ctrflow.readers import genes
from runs import ROOT

SYMBOLS = ["EPCAM", "KRT8", "HLA-A", "MT-CO1", "C1orf112", "AC004381.1", "7SK", "GATA3", "ERBB2", "DCN"]
IDS = [f"ENSG{number:011d}" for number in (119888, 170421, 206503, 198804, 460, 5, 6, 107485, 141736, 11465)]
MOUSE = ["Epcam", "Krt8", "mt-Co1", "1700001C02Rik", "Gm1234", "H2-K1", "Gata3", "Erbb2", "Dcn", "Lum"]


@pytest.fixture(autouse=True)
def _all_levels(caplog):
    caplog.set_level(logging.INFO)


def var(index, **columns):
    return pd.DataFrame({name: list(values) for name, values in columns.items()}, index=index)


def warnings(caplog) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.fixture(scope="module")
def human():
    return gene_names.read(ROOT / "config" / "genes" / "human.tsv.gz")


# --- where the symbols are --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        "feature_name", "gene_symbols", "gene_symbol", "gene_name", "gene_names", "symbol", "symbols", "SYMBOL",
        "Symbol", "name", "real_gene_name", "gene_short_name", "external_gene_name", "hgnc_symbol", "GeneSymbol",
        "features", "gene", "_index_symbol", "Gene Name", "what nobody thought of",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "index",
    [IDS, [f"{one}.7" for one in IDS], [one.replace("ENSG", "ENSMUSG") for one in IDS], list(map(str, range(10)))],
    ids=["ids", "versions", "mouse", "numbers"],
)
def test_ids_get_the_symbols_of_the_column_that_has_them(caplog, column, index):
    assert genes.symbols(var(index, **{column: SYMBOLS}), "s.h5ad") == SYMBOLS
    assert f"s.h5ad: gene symbols from var['{column}'], instead of {index[0]}" in caplog.text
    assert warnings(caplog) == []


TRAPS = {
    "feature_types": ["Gene Expression"] * 10,
    "genome": ["GRCh38"] * 10,
    "chromosome": [*"1234567", "X", "Y", "MT"],
    "biotype": ["protein_coding"] * 6 + ["lncRNA"] * 4,
    "description": [f"keratin {number} [Source:HGNC Symbol;Acc:{number}]" for number in range(10)],
    "interval": [f"chr1:{number}00-{number}99" for number in range(1, 11)],
    "hgnc_id": [f"HGNC:{number}" for number in range(10)],
    "refseq": [f"NM_{number:06d}.2" for number in range(10)],
    "mrna": [f"NM_{number:06d}.2" for number in range(10)],
    "product": [f"{letter}{number}2XY1" for number, letter in enumerate("OPQOPQOPQO")],
    "transcript_name": [f"{name}-201" for name in SYMBOLS],
    "first_transcript": [f"ENST{number:011d}" for number in range(10)],
    "probe_sequence": ["ACGT" * 6 + "A" * number for number in range(10)],
    "mouse_ortholog": MOUSE,
    "previous_symbols": MOUSE,
    "number": [f"feature_{number}" for number in range(10)],
    "gene_ids": IDS,
    "entrez": list(map(str, range(100, 110))),
    "n_counts": range(10),
    "highly_variable": [True] * 10,
    "source": [None] * 10,
}


@pytest.mark.parametrize("column", TRAPS)
def test_other_columns_are_not_taken_for_symbols(caplog, column):
    ids = [f"{one}.7" for one in IDS]
    assert genes.symbols(var(ids, **{column: TRAPS[column]}), "s.h5ad") == ids
    assert f"s.h5ad: no column of var has symbols: genes are named by ids such as {ids[0]}" in caplog.text


def test_symbols_are_found_among_all_these_columns():
    traps = {name: values for name, values in TRAPS.items() if name != "gene_ids"}
    assert genes.symbols(var(IDS, **traps, mine=SYMBOLS), "s.h5ad") == SYMBOLS
    # by the name of the column before its content, by the better name first
    assert genes.symbols(var(IDS, also=MOUSE, gene_name=SYMBOLS), "s.h5ad") == SYMBOLS
    assert genes.symbols(var(IDS, name=MOUSE, feature_name=SYMBOLS), "s.h5ad") == SYMBOLS


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, "", "nan", "NA", "None", " "])
@pytest.mark.parametrize("kind", ["object", "category", "string"])
def test_a_gene_without_a_symbol_keeps_its_id(missing, kind):
    column = pd.Series([missing, *SYMBOLS[1:]], dtype="object")
    column = column.where(column.notna(), None).astype(kind)
    table = pd.DataFrame({"gene_symbols": column.to_numpy() if kind == "object" else column.array}, index=IDS)
    assert genes.symbols(table, "s.h5ad") == [IDS[0], *SYMBOLS[1:]]


def test_bytes_and_ids_in_the_column_of_symbols():
    assert genes.symbols(var(IDS, name=[one.encode() for one in SYMBOLS]), "s.h5ad") == SYMBOLS
    mixed = [*IDS[:6], *SYMBOLS[6:]]  # CELLxGENE repeats the id where there is no symbol
    assert genes.symbols(var(IDS, feature_name=mixed), "s.h5ad") == mixed


def test_an_index_of_symbols_is_the_names(caplog):
    table = var(SYMBOLS, gene_ids=IDS, feature_types=TRAPS["feature_types"], genome=TRAPS["genome"], other=MOUSE)
    assert genes.symbols(table, "s.h5ad") == SYMBOLS
    unique = ["EPCAM", "EPCAM-1", "RP11_34P13.7", *SYMBOLS[3:]]
    table = var(unique, gene_symbols=["EPCAM", "EPCAM", "RP11-34P13.7", *SYMBOLS[3:]])
    assert genes.symbols(table, "s.h5ad") == unique
    assert caplog.text == ""


def test_an_index_that_the_column_of_symbols_contradicts_is_told(caplog):
    assert genes.symbols(var(SYMBOLS, gene_symbols=SYMBOLS[::-1]), "s.h5ad") == SYMBOLS
    (told,) = warnings(caplog)
    assert "s.h5ad: var['gene_symbols'] contradicts the names in var's index for 10 of 10 genes" in told
    assert "(EPCAM, KRT8, HLA-A and 7 more in the index, DCN, ERBB2, GATA3 and 7 more in the column)" in told


def test_names_of_both_id_and_symbol():
    for names in (
        [f"{one}_{symbol}" for one, symbol in zip(IDS, SYMBOLS, strict=True)],
        [f"{symbol}|{one}.3" for one, symbol in zip(IDS, SYMBOLS, strict=True)],
        [f"{symbol} ({one})" for one, symbol in zip(IDS, SYMBOLS, strict=True)],
    ):
        assert genes.symbols(var(names), "s.h5ad") == SYMBOLS
        assert genes.symbols(var([f"hg19_{one}" for one in names]), "s.h5ad") == [f"hg19_{one}" for one in SYMBOLS]


LIKE_GENOMES = ["CADM2", "TOMM22", "NSMCE2-AS1", "DM1-AS", "RAT_1", "hg19-like", "PRAT", "MORN1", "EPCAM", "KRT8"]


@pytest.mark.parametrize("prefix", ["", "GRCh38_", "mm10___"])
@pytest.mark.parametrize("both", ["{symbol}_{one}", "{symbol}|{one}.3", "{one}_{symbol}", "{one}-{symbol}"])
def test_genes_whose_names_hold_that_of_a_genome_keep_it(caplog, prefix, both):
    names = [prefix + both.format(one=one, symbol=name) for one, name in zip(IDS, LIKE_GENOMES, strict=True)]
    found = genes.symbols(var(names), "s.h5ad")
    assert found == [prefix + name for name in LIKE_GENOMES]
    assert genes.of_one_species(found, "s.h5ad")[1] == LIKE_GENOMES
    assert warnings(caplog) == []


def test_genes_that_begin_like_a_genome_are_judged_whole():
    assert genes.symbols(var(IDS, symbols=LIKE_GENOMES), "s.h5ad") == LIKE_GENOMES
    assert genes._without_prefix(LIKE_GENOMES) == LIKE_GENOMES
    assert genes._without_prefix([f"hg19_{name}" for name in LIKE_GENOMES]) == LIKE_GENOMES
    assert genes._without_prefix(["", "hg19_EPCAM", "hg19_KRT8"]) == ["", "EPCAM", "KRT8"]  # a column with gaps
    some = [f"GRCh38_{one}" for one in IDS[:7]] + ["E6", "E7", "LMP1"]  # genes of a virus have none
    assert genes.symbols(var(some, symbols=[*SYMBOLS[:7], "E6", "E7", "LMP1"]), "s.h5ad")[:7] == SYMBOLS[:7]


PROBES = [(one, name, f"0a1b{number:03x}") for number, (one, name) in enumerate(zip(IDS, SYMBOLS, strict=True))]


@pytest.mark.parametrize(
    "form", ["{0}|{1}|{2}", "{1}|{0}|{2}", "{1}|{2}", "{0}|{2}", "GRCh38_{0}|{1}|{2}", "{0}-{1}-{2}"]
)
@pytest.mark.parametrize("index", [SYMBOLS, ["EPCAM", "EPCAM-1", "EPCAM-2", *SYMBOLS[1:8]], IDS, None])
def test_counts_of_probes_are_refused(form, index):
    probes = [form.format(*one) for one in PROBES]
    table = var(probes, gene_name=SYMBOLS) if index is None else var(index, gene_ids=probes)
    told = (
        f"s.h5ad: counts of probes, such as {probes[0]}, several of a gene; give the matrix of genes "
        "(filtered_feature_bc_matrix), or sum the probes of each gene"
    )
    with pytest.raises(InputError, match=f"^{re.escape(told)}$"):
        genes.symbols(table, "s.h5ad")


def test_genes_with_names_like_those_of_probes_are_read():
    some = [f"{one}|{number}" for number, one in enumerate(SYMBOLS, start=100)]  # symbol and Entrez's number
    assert genes.symbols(var(some), "s.h5ad") == some
    numbered = [f"gene-{number:07d}" for number in range(10)]
    assert genes.symbols(var(numbered), "s.h5ad") == numbered
    probe_ids = ["|".join(one) for one in PROBES]  # one of the probes of each gene
    assert genes.symbols(var(SYMBOLS, probe_ids=probe_ids), "s.h5ad") == SYMBOLS
    few = [*SYMBOLS[:9], "|".join(PROBES[9])]
    assert genes.symbols(var(few), "s.h5ad") == few


def test_numbers_get_ids_where_there_are_no_symbols():
    assert genes.symbols(var(range(10), gene_ids=IDS), "s.h5ad") == IDS
    assert genes.symbols(var(range(10)), "s.h5ad") == list(map(str, range(10)))


def test_every_symbol_of_the_shipped_table(human, caplog):
    ids, names = list(human["ensembl"]), list(human["gene"])
    assert genes.symbols(var(ids, chromosome=human["chromosome"], other=human["other"], x=names), "s.h5ad") == names
    assert genes.symbols(var(names, gene_ids=ids), "s.h5ad") == names
    assert warnings(caplog) == []


# --- genomes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    [
        "GRCh38_", "GRCh38______", "hg19_", "hg38_", "GRCh38-2020-A_", "GRCh38-2020-A____", "GRCh38.p13_", "GRCh38-",
        "GRCh38_premrna_", "mm10_", "mm10___", "mm10-2020-A_", "GRCm38_", "GRCm39_", "mRatBN7.2_", "HUMAN_",
    ],
)  # fmt: skip
def test_the_prefix_of_a_genome_is_left_out(caplog, prefix):
    kept, plain = genes.of_one_species([prefix + one for one in SYMBOLS], "s.h5ad")
    assert (kept.dtype, kept.all(), plain) == (bool, True, SYMBOLS)
    assert f"s.h5ad: the prefix {prefix} of 10 genes is left out" in caplog.text
    assert warnings(caplog) == []


@pytest.mark.parametrize("human_first", [True, False])
def test_of_a_xenograft_the_human_genes_are_kept(caplog, human_first):
    names = [f"GRCh38_{one}" for one in SYMBOLS[:4]] + [f"mm10___{one}" for one in MOUSE]
    names = names if human_first else names[::-1]
    kept, plain = genes.of_one_species(names, "s.h5ad")
    assert kept.tolist() == [name.startswith("GRCh38_") for name in names]
    assert plain == (SYMBOLS[:4] if human_first else SYMBOLS[3::-1])
    (told,) = warnings(caplog)
    assert "s.h5ad: genes of 2 genomes (mm10: 10, GRCh38: 4): those of GRCh38 are kept, the others left out" in told


def test_without_a_human_genome_the_larger_is_kept(caplog):
    names = [f"mm10_{one}" for one in MOUSE] + ["mRatBN7.2_Epcam", "mRatBN7.2_Lum"]
    kept, plain = genes.of_one_species(names, "s.h5ad")
    assert (kept.tolist(), plain) == ([True] * 10 + [False] * 2, MOUSE)
    assert "those of mm10 are kept, which has the most, as none is human" in warnings(caplog)[0]


def test_controls_without_a_prefix_stay():
    names = [f"hg19_{one}{number}" for number in range(2) for one in SYMBOLS] + ["ERCC-00002"]
    kept, plain = genes.of_one_species(names, "s.h5ad")
    assert (kept.all(), plain[-1], plain[:2]) == (True, "ERCC-00002", ["EPCAM0", "KRT80"])


@pytest.mark.parametrize(
    "names",
    [
        SYMBOLS, MOUSE, IDS, ["HLA_A", "HLA_B", "HLA_C"], ["mt_Co1", "mt_Nd1"], ["RP11_34P13", "RP11_5C3"],
        [f"gene_{number}" for number in range(9)], [f"hg19_{one}" for one in SYMBOLS[:9]] + SYMBOLS[:1], [],
        ["GRCh38_", "hg19_"],
    ],
)  # fmt: skip
def test_names_without_the_prefix_of_a_genome_stay(caplog, names):
    kept, plain = genes.of_one_species(names, "s.h5ad")
    assert (kept.tolist(), plain) == ([True] * len(names), names)
    assert caplog.text == ""


def test_no_gene_of_the_shipped_table_has_the_prefix_of_a_genome(human):
    former = [name for names in human["other"] for name in names.split("|") if name]
    assert [name for name in (*human["gene"], *former) if re.match(genes.PREFIX, name)] == ["DM1-AS"]


def test_ids_with_a_prefix_get_symbols_with_theirs():
    table = var([f"GRCh38_{one}" for one in IDS], gene_symbols=[f"GRCh38_{one}" for one in SYMBOLS])
    assert genes.of_one_species(genes.symbols(table, "s.h5ad"), "s.h5ad")[1] == SYMBOLS


# --- species ----------------------------------------------------------------------------------------------------------


def test_species(human):
    symbols, ids = list(human["gene"]), list(human["ensembl"])
    assert genes.species(symbols) == genes.species(ids) == genes.species(SYMBOLS) == "human"
    assert genes.species([f"GRCh38_{one}" for one in symbols]) == genes.species([f"{one}.2" for one in ids]) == "human"
    mouse_ids = [one.replace("ENSG", "ENSMUSG") for one in ids]
    assert genes.species(MOUSE) == genes.species(mouse_ids) == genes.species(list(map(str.title, symbols))) == "mouse"


@pytest.mark.parametrize("names", [[], ["1", "22"], ["epcam", "krt8"], ["ENSDARG00000000001", "ENSDARG00000000002"]])
def test_names_that_do_not_tell_their_species(names):
    assert genes.species(names) == ""
