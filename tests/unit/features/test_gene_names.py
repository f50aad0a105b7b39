"""Symbols and Ensembl ids: the shipped table of human genes, and sections named in another way than a model."""

import gzip
import logging
from collections import Counter

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow import storage
from ctrflow.errors import InputError
from ctrflow.features import gene_names
from runs import ROOT

SHIPPED = ROOT / "config" / "genes" / "human.tsv.gz"
HEADER = "\t".join(gene_names.COLUMNS)
ROWS = [
    "ENSG00000000001\tAAA\t1\t100\t200\t",
    "ENSG00000000002\tBBB\t2\t100\t200\tOLDEST|OLD",
    "ENSG00000000003\tTWICE\t3\t100\t200\t",
    "ENSG00000000004\tTWICE\t3\t150\t250\t",
    "ENSG00000000005\tNA\tX\t1\t9\t",
]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "genes.tsv"
    path.write_text("\n".join(["# ours", HEADER, *ROWS]) + "\n")
    return gene_names.read(path)


def view(*names):
    """Two spots: gene i has 10**i counts in the first, and 1 in the second."""
    counts = np.array([10.0 ** np.arange(len(names)), np.ones(len(names))], dtype=np.float32)
    obs = pd.DataFrame({"section": "T"}, index=["s0", "s1"])
    return anndata.AnnData(
        sparse.csr_matrix(counts),
        obs=obs,
        var=pd.DataFrame(index=list(names)),
        obsm={"spatial": np.ones((2, 2))},
        uns={"encoder": {"id": "e"}},
    )


def counts_of(table) -> dict[str, float]:
    """Gene -> its counts in the first spot."""
    return dict(zip(table.var_names, table.X.toarray()[0].tolist(), strict=True))


def test_ids_become_the_symbols_of_the_model(table, caplog):
    caplog.set_level(logging.INFO)
    section = view("ENSG00000000001.12", "ENSG00000000002", "ENSG00000000099.3", "ENSG00000000005")
    found = gene_names.translated(section, "T", ["AAA", "OLD", "ZZZ"], table)
    # the model knows BBB by a former symbol; an unknown id keeps its name, version included
    assert counts_of(found) == {"AAA": 1, "OLD": 10, "ENSG00000000099.3": 100, "NA": 1000}
    assert "section T: 3 of its 4 Ensembl ids have a symbol" in caplog.text
    assert list(found.obs["section"]) == ["T", "T"]
    assert found.obsm["spatial"].shape == (2, 2)
    assert found.uns["encoder"] == {"id": "e"}


def test_the_symbol_of_today_goes_before_a_former_one(table):
    assert list(gene_names.translated(view("ENSG00000000002"), "T", ["OLD", "BBB"], table).var_names) == ["BBB"]


def test_counts_of_ids_with_one_symbol_are_summed(table):
    section = view("ENSG00000000003.1", "ENSG00000000001", "ENSG00000000004", "ENSG00000000001.2_PAR_Y")
    found = gene_names.translated(section, "T", ["AAA", "TWICE"], table)
    assert counts_of(found) == {"TWICE": 101, "AAA": 1010}
    assert found.X.toarray()[1].tolist() == [2, 2]


def test_symbols_become_the_ids_of_the_model(table, caplog):
    caplog.set_level(logging.INFO)
    model = ["ENSG00000000002.7", "ENSG00000000004.1"]
    found = gene_names.translated(view("AAA", "OLDEST", "TWICE", "OTHER"), "T", model, table)
    # spelt as in the model; of two ids of a symbol the one that the model has
    assert counts_of(found) == {"ENSG00000000001": 1, "ENSG00000000002.7": 10, "ENSG00000000004.1": 100, "OTHER": 1000}
    assert "section T: 3 of its 4 gene symbols have an Ensembl id" in caplog.text


def test_a_gene_that_was_renamed_gets_the_name_that_the_model_has(table, caplog):
    caplog.set_level(logging.INFO)
    found = gene_names.translated(view("BBB", "AAA", "XXX"), "T", ["AAA", "OLD", "ZZZ"], table)
    assert counts_of(found) == {"OLD": 1, "AAA": 10, "XXX": 100}
    assert "section T: 1 of its 3 gene symbols have another symbol in the model" in caplog.text
    assert list(gene_names.translated(view("OLD"), "T", ["BBB"], table).var_names) == ["BBB"]


@pytest.mark.parametrize(
    ("names", "model"),
    [
        (["ENSMUSG00000000001.4", "ENSMUSG00000000002"], ["AAA", "BBB"]),  # another species
        (["ENSG00000000098", "ENSG00000000099"], ["AAA", "BBB"]),  # none in the table
        (["OLD", "AAA"], ["AAA"]),  # symbols, and the model has none of the gene
        (["OLD", "BBB"], ["AAA", "BBB"]),  # measured under the model's own name, whatever else it has
        (["ENSG00000000001.4", "ENSG00000000002.1"], ["ENSG00000000001", "ENSG00000000002"]),
        (["1", "22"], ["AAA", "BBB"]),
    ],
)
def test_other_sections_stay_as_they_are(table, names, model):
    section = view(*names)
    assert gene_names.translated(section, "T", model, table) is section


IDS = [f"ENSG{number:011d}" for number in range(1, 9)]


@pytest.mark.parametrize(
    ("ours", "theirs", "cause", "cure"),
    [
        (list("ABCD"), IDS, "gene symbols in S (A, B, C), Ensembl ids in T (ENSG", "give T gene symbols too"),
        (IDS, list("ABCD"), "Ensembl ids in S (ENSG00000000001, ", "give S gene symbols too (in an .h5ad as var_names"),
        (["1", "22"], list("ABCD"), "Entrez numbers in S (1, 22), gene", "give S gene symbols too"),
        (IDS, [f"{one}.12" for one in IDS], "names differ in their version number in S (ENSG", "leave it out of both"),
        (IDS, [one.replace("G", "MUSG") for one in IDS], "ids of two species (ENSG, ENSMUSG) in S", "of one species"),
        (["EPCAM", "KRT8"], ["Epcam", "Krt8", "Lum"], "upper and lower case, as of human and mouse", "one species"),
        (
            ["EPCAM", "KRT8"],
            ["x_EPCAM", "x_KRT8"],
            "names differ by the beginning x_ in S (EPCAM, KRT8)",
            "leave it out",
        ),
    ],
)
def test_why_names_are_unlike(ours, theirs, cause, cure):
    why = gene_names.unlike(ours, theirs, "S", "T")
    assert cause in why.partition(": ")[0]
    assert cure in why.partition(": ")[2]


def test_names_that_do_not_tell_why_they_are_unlike():
    assert gene_names.unlike(["EPCAM", "KRT8"], ["DCN", "LUM"], "S", "T") == ""
    assert gene_names.unlike(IDS[:4], IDS[4:], "S", "T") == ""


@pytest.mark.parametrize("content", [b"", b"ensembl\tgene\nENSG1\tA\n", b"\x1f\x8b\x08\x00", b"\x00\xff\x00"])
def test_a_broken_table_is_refused_with_the_cure(tmp_path, content):
    path = tmp_path / "human.tsv.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"human.tsv.gz: not a table of genes .*get the file again"):
        gene_names.read(path)


# --- the shipped table ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def human():
    return gene_names.read(SHIPPED)


def test_the_shipped_table_names_its_source_and_is_the_same_to_the_byte_each_time():
    content = SHIPPED.read_bytes()
    assert content[4:8] == bytes(4)  # no time
    text = gzip.decompress(content).decode("ascii")
    about = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    assert all(word in about for word in ("GENCODE 48", "Ensembl 114", "GRCh38", "HGNC", "25 June 2026"))


def test_the_shipped_table_has_each_gene_once(human):
    assert human["ensembl"].is_unique
    assert human["ensembl"].is_monotonic_increasing
    assert human["ensembl"].str.fullmatch(r"ENSG\d{11}").all()
    assert (human["gene"] != "").all()
    assert not human["gene"].str.fullmatch(gene_names.PATTERNS[gene_names.IDS]).any()
    assert ((human["start"] >= 1) & (human["start"] < human["end"])).all()
    chromosomes = set(human["chromosome"])
    assert {*map(str, range(1, 23)), "X", "Y", "MT"} <= chromosomes
    assert len(human) > 25_000


def test_a_former_symbol_of_the_shipped_table_means_one_gene(human):
    former = Counter(name for names in human["other"] for name in names.split("|") if name)
    assert set(former.values()) == {1}
    assert not set(former) & set(human["gene"])


@pytest.mark.parametrize(
    ("ensembl", "gene", "chromosome", "inside"),
    [
        ("ENSG00000141736", "ERBB2", "17", 39_700_000),
        ("ENSG00000119888", "EPCAM", "2", 47_370_000),
        ("ENSG00000170421", "KRT8", "12", 52_900_000),
        ("ENSG00000198804", "MT-CO1", "MT", 6_000),
        ("ENSG00000251562", "MALAT1", "11", 65_500_000),
        ("ENSG00000211592", "IGKC", "2", 88_857_300),
        ("ENSG00000277734", "TRAC", "14", 22_550_000),
        ("ENSG00000229807", "XIST", "X", 73_830_000),
    ],
)
def test_known_genes_of_the_shipped_table(human, ensembl, gene, chromosome, inside):
    row = human.set_index("ensembl").loc[ensembl]
    assert (row["gene"], row["chromosome"]) == (gene, chromosome)
    assert row["start"] < inside < row["end"]


def test_positions_of_the_shipped_table_count_from_1(human):
    # NC_012920: COX1 is at 5904..7445
    row = human.set_index("gene").loc["MT-CO1"]
    assert (row["start"], row["end"]) == (5904, 7445)


def test_former_symbols_of_the_shipped_table(human):
    other = human.set_index("gene")["other"].str.split("|")
    assert "AAED1" in other["PRXL2C"]
    assert "MARCH1" in other["MARCHF1"]
    assert "SEPT2" in other["SEPTIN2"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "models").rglob("*.safetensors")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_the_shipped_table_knows_the_genes_of_the_shipped_models(human, path):
    metadata = storage.read_safetensors_metadata(path)
    if metadata["modalities"] == ["image"]:
        return
    named = {*human["gene"], *(name for names in human["other"] for name in names.split("|"))}
    for genes in (metadata["genes"], metadata["library_genes"]):
        assert np.mean([gene in named for gene in genes]) > 0.99
