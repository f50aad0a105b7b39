"""The shipped lists of public sections: rows that hang together, addresses with evidence, words that are known."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from ctrflow.fetch.sources import below, read_sources
from ctrflow.plan.sheet import read_sheet
from ctrflow.sections.labels import read_labels, read_words

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
DOCS = (ROOT / "docs" / "sections.md").read_text(encoding="utf-8")
WORDS = CONFIG / "label_words.tsv"

# what a reader needs of a section, whatever the version that wrote it
NEEDS = {
    "visium": {
        "filtered_feature_bc_matrix.h5",
        "spatial/tissue_positions_list.csv",
        "spatial/scalefactors_json.json",
        "spatial/tissue_hires_image.png",
    },
    "xenium": {"cell_feature_matrix.h5", "cells.csv.gz", "experiment.xenium"},
}
# the words of the 14 pathologist's tables of Valdeolivas et al., as they are spelt; the five first are cancer
CRC_CANCER = [
    "tumor", "tumor&stroma", "tumor&stroma IC med to high", "tumor&stroma_IC low", "tumor&stroma_IC med to high",
]  # fmt: skip
CRC_OTHER = [
    "IC aggragate_stroma or muscularis", "IC aggreagate_connective tissue", "IC aggregate connective tissue",
    "IC aggregate submucosa", "IC aggregate_muscularis or stroma", "IC aggregate_stroma or muscularis",
    "IC aggregate_submucosa", "IC aggregregate_submucosa", "IC aggreates_stroma or muscularis",
    "connective tissue_1_edema", "connective tissue_2_fibroblastic_IC low", "connective tissue_3_fibroblastic_IC med",
    "connective tissue_4_muscularis_IC low", "connective tissue_6_hemosiderin?", "epithelium&lam propria",
    "epithelium&submucosa", "epitehlium&submucosa", "glandular tissue", "lamina propria", "muscularis_IC med to high",
    "non neo epithelium", "squamous epithelium", "stroma desmoplastic_IC low", "stroma desmoplastic_IC med to high",
    "stroma_desmoplastic_IC low", "stroma_desmoplastic_IC med to high", "stroma_fibroblastic_IC high",
    "stroma_fibroblastic_IC low", "stroma_fibroblastic_IC med", "stroma_fibroblastic_IC_high",
    "stroma_fibroblastic_IC_med", "submucosa",
]  # fmt: skip
XENIUM_CANCER = ["DCIS_1", "DCIS_2", "Invasive_Tumor", "Prolif_Invasive_Tumor"]
XENIUM_OTHER = [
    "Stromal", "Macrophages_1", "Macrophages_2", "Endothelial", "CD4+_T_Cells", "CD8+_T_Cells", "B_Cells", "Mast_Cells",
    "Myoepi_ACTA2+", "Myoepi_KRT15+", "Perivascular-Like", "IRF7+_DCs", "LAMP3+_DCs", "Stromal_&_T_Cell_Hybrid",
]  # fmt: skip
XENIUM_UNKNOWN = ["Unlabeled", "T_Cell_&_Tumor_Hybrid"]


@pytest.fixture(scope="module")
def sections():
    table = read_sheet([CONFIG / "sections.tsv"]).set_index("section")
    return table[~table["path"].str.startswith("data/demo/")]


@pytest.fixture(scope="module")
def sources():
    return read_sources(CONFIG / "sources.tsv")


@pytest.fixture(scope="module")
def table_s1():
    """Section -> metric -> number of SpaCRD's Table S1."""
    metrics = {}
    with open(CONFIG / "published.tsv", encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle, delimiter="\t"):
            if (row["paper"], row["table"]) == ("SpaCRD", "Table S1"):
                metrics.setdefault(row["dataset"], {})[row["metric"]] = float(row["mean"])
    return metrics


def test_every_section_of_table_s1_has_a_row(sections, table_s1):
    assert len(table_s1) == 23
    assert set(table_s1) - set(sections.index) == set()
    assert list(sections.loc[list(table_s1), "normal"].unique()) == [""]


def test_cohorts_and_references(sections):
    sizes = {
        "sthbc": 8, "example": 1, "vihbc": 1, "hbc_i1": 1, "idc": 1, "xehbc": 1, "crc": 12, "crc_normal": 2, "hhb": 8,
        "psc": 4,
    }  # fmt: skip
    assert sections["cohort"].value_counts().to_dict() == sizes
    assert set(sections.index[sections["normal"] == "yes"]) == {
        "CRC_F1", "CRC_F2", *(f"HHB_v{n:02d}" for n in range(3, 11)),
    }  # fmt: skip


def test_serial_sections_share_a_patient(sections):
    assert sections.loc[["STHBC_A", "STHBC_G"], "patient"].tolist() == ["her2st_A", "her2st_G"]
    assert sections.groupby("cohort")["patient"].nunique()[["sthbc", "crc", "crc_normal", "psc"]].tolist() == [
        8,
        6,
        1,
        1,
    ]
    for letter in "ABCDEFG":
        assert sections.loc[f"CRC_{letter}1", "patient"] == sections.loc[f"CRC_{letter}2", "patient"]
    assert sections.loc["example_B4", "patient"] == sections.loc["STHBC_B", "patient"]
    assert sections.loc["hBC_I1", "patient"] == sections.loc["ViHBC", "patient"]


def test_sections_are_what_their_samples_are(sections):
    # the letters of CRC follow the slide numbers 48, 84, 123 and 124 (docs/sections.md)
    samples = sections["path"].str.rpartition("/")[2]
    assert samples["STHBC_G"] == "G2.tsv.gz"
    assert samples[["CRC_A1", "CRC_C2", "CRC_G1"]].tolist() == [
        "SN048_A121573_Rep1", "SN84_A120838_Rep2", "SN123_A938797_Rep1_X",
    ]  # fmt: skip
    for section, row in sections[sections["cohort"].isin(["crc", "crc_normal"])].iterrows():
        assert f"_Rep{section[-1]}" in row["path"]
        assert Path(row["labels"]).stem == f"Pathologist_Annotations_{samples[section]}"


def test_every_file_of_a_row_is_in_the_list(sections, sources):
    named = {
        path
        for column in ("path", "image", "labels", "alignment")
        for path in sections[column]
        if path.startswith("data/public/")
    }
    assert len(named) == 62
    assert [path for path in sorted(named) if path not in sources.index and not below(sources, path)] == []
    own = sections[sections["cohort"].isin(["hhb", "psc"])]["path"]
    assert own.str.startswith("data/own/").all()


def test_every_file_of_the_list_is_of_a_row(sections, sources):
    used = set(sections[["path", "image", "labels", "alignment"]].to_numpy().ravel())
    for row in sections[sections["platform"] == "st"].itertuples():
        used.add(row.path.replace("ST-cnts", "ST-spotfiles").replace(".tsv.gz", "_selection.tsv"))
    unused = [
        path for path in sources.index if path not in used and not any(path in below(sources, p) for p in used if p)
    ]
    # listed so that it can be fetched, but its words have not been seen
    assert unused == ["data/public/bayesspace/IDC1_annotations.csv"]


@pytest.mark.parametrize("platform", list(NEEDS))
def test_folders_hold_what_the_reader_needs_and_no_label(sections, sources, platform):
    rows = sections[sections["platform"] == platform]
    assert len(rows) == {"visium": 17, "xenium": 1}[platform]
    for row in rows.itertuples():
        inside = {path.removeprefix(f"{row.path}/") for path in below(sources, row.path)}
        image = {"spatial/tissue_hires_image.png"} if row.Index == "IDC" else set()  # fluorescence: left out
        assert inside == NEEDS[platform] - image
        assert not row.labels.startswith(f"{row.path}/")


def test_the_files_of_the_st_reader_are_in_the_list(sections, sources):
    for row in sections[sections["platform"] == "st"].to_dict("records"):
        spots = row["path"].replace("ST-cnts", "ST-spotfiles").replace(".tsv.gz", "_selection.tsv")
        beside = [row["image"], row["labels"]] if row["cohort"] == "sthbc" else [row["image"]]
        assert {row["path"], spots, *beside} <= set(sources.index)
        letter_and_number = Path(row["path"]).name.removesuffix(".tsv.gz")
        assert all(letter_and_number in Path(path).name for path in beside)


def test_addresses(sources):
    assert sources["url"].str.startswith("https://").all()
    assert (sources["checked"] == "no").all()
    # a repository's file at a commit, which cannot change, not at a branch
    at_github = sources.loc[sources["url"].str.contains("raw.githubusercontent.com"), "url"]
    assert len(at_github) == 28
    assert at_github.str.fullmatch(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/.+").all()
    packed = sources["member"] != ""
    assert sources.loc[packed, "url"].str.contains(r"\.(?:zip|tar\.gz)(?:\?|$)").all()
    assert not sources.loc[~packed, "url"].str.contains(r"\.(?:zip|tar\.gz)(?:\?|$)").any()
    assert sources.loc[~packed, "password"].unique().tolist() == [""]
    # a member keeps its name
    assert [Path(path).name for path in sources.index[packed]] == [Path(m).name for m in sources.loc[packed, "member"]]


def test_every_address_has_its_evidence(sources):
    evidence = re.findall(r"^\| `(https://[^`]+)`", DOCS.split("## Where each address was read")[1], flags=re.M)
    assert len(evidence) == 9
    assert [url for url in sources["url"].unique() if not url.startswith(tuple(evidence))] == []
    assert [start for start in evidence if not sources["url"].str.startswith(start).any()] == []


def test_no_secret_but_the_published_password(sources):
    texts = {name: (CONFIG / name).read_text(encoding="utf-8") for name in ("sources.tsv", "sections.tsv")}
    texts["sections.md"] = DOCS
    secret = re.compile(
        r"hf_[A-Za-z0-9]{16,}|gh[opsu]_[A-Za-z0-9]{16,}|github_pat_|AKIA[A-Z0-9]{12,}|X-Amz-|[?&](?:token|signature|key|sig)=|"
        r"://[^/\s]*@|BEGIN [A-Z ]*PRIVATE KEY",
        re.IGNORECASE,
    )
    assert [(name, secret.search(text).group()) for name, text in texts.items() if secret.search(text)] == []
    passwords = sources.loc[sources["password"] != "", ["url", "password"]].drop_duplicates()
    assert passwords["url"].tolist() == ["https://zenodo.org/record/4751624/files/images.zip?download=1"]


def test_the_page_names_every_section_with_its_published_numbers(sections, table_s1):
    rows = {}
    for line in DOCS.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 6 and cells[0] in sections.index:
            rows[cells[0]] = (sections.loc[cells[0], "platform"] == cells[2], cells[3], cells[4])
    assert {section: (True, f"{m['n_spots']:,.0f}", f"{m['cancer_ratio']:.3f}") for section, m in table_s1.items()} == {
        section: cells for section, cells in rows.items() if cells[1]
    }
    rest = set(sections.index) - set(rows)
    assert rest == set(sections.index[sections["cohort"].isin(["hhb", "psc"])])
    assert all(re.search(rf"\b{section}\b", DOCS) for section in rest if section not in HIDDEN)


HIDDEN = {f"HHB_v{n:02d}" for n in range(4, 10)}  # "HHB_v03 ... HHB_v10"


def test_notes_do_not_call_real_sections_simulated(sections):
    assert (sections["note"] != "").all()
    assert not sections["note"].str.startswith("simulated").any()


# --- words ------------------------------------------------------------------------------------------------------------


def labels_of(words, tmp_path, cohort="", header="barcode,region", name="words.csv"):
    """Labels that a table with one spot a word gets, as text: 1, 0 or "" for unknown."""
    import pandas as pd
    from anndata import AnnData

    path = tmp_path / name
    path.write_text("\n".join([header, *(f"{n},{word}" for n, word in enumerate(words))]) + "\n", encoding="utf-8")
    spots = AnnData(np.ones((len(words), 1), np.float32), obs=pd.DataFrame(index=[str(n) for n in range(len(words))]))
    spots.obsm["spatial"] = np.zeros((len(words), 2))
    spots.uns["section"] = {"section": "S", "image_scale": 1.0, "spot_um": 55.0, "um_per_px": 1.0}
    label = read_labels(path, spots, read_words(WORDS, cohort), words_path=WORDS)["label"]
    return ["" if pd.isna(value) else str(int(value)) for value in label]


@pytest.mark.parametrize(
    "column", ["Pathologist Annotations", "Pathologist Annotation", "Pathologist annotation", "Pathologist_KH"]
)
def test_words_of_the_crc_tables(tmp_path, column):
    words = [*CRC_CANCER, *CRC_OTHER, "exclude", ""]
    assert len(words) == 39
    wanted = ["1"] * len(CRC_CANCER) + ["0"] * len(CRC_OTHER) + ["", ""]
    assert labels_of(words, tmp_path, "crc", f"Barcode,{column}") == wanted


def test_words_of_the_xenium_cell_types(tmp_path):
    words = [*XENIUM_CANCER, *XENIUM_OTHER, *XENIUM_UNKNOWN]
    assert len(words) == 20
    assert labels_of(words, tmp_path, "xehbc", "Barcode,Cluster") == ["1"] * 4 + ["0"] * 14 + ["", ""]


@pytest.mark.parametrize(
    ("cohort", "wanted"),
    [
        ("vihbc", ["1", "1", "0", "0"]),
        ("hbc_i1", ["", "", "1", "0"]),
        ("mine", ["1", "1", "", "0"]),
    ],
)
def test_the_edge_of_the_tumour_depends_on_the_task(tmp_path, cohort, wanted):
    assert labels_of(["IDC_4", "DCIS/LCIS_3", "Tumor_edge_5", "Healthy_1"], tmp_path, cohort) == wanted
    assert labels_of(["Invasive", "Tumor", "Surrounding tumor", "Healthy"], tmp_path, cohort) == wanted
