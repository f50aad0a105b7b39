"""Bad input as a user meets it: `snakemake` says once what is wrong, where and what to do; nothing is left half done.

A fault below spoils a copy of the workflow and says what the message must hold; the first words name the place.
"""

import gzip
import re
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest

from runs import MINI, add_rows, copy, run, st_row, write_study

DATA = "data/mini"
STUDY = "config/studies/mini.yaml"


def rewrite(path, old: str, new: str) -> None:
    """Replace a text that must be in a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# --- seen before anything runs ----------------------------------------------------------------------------------------


def a_tab_in_the_configuration(folder):
    path = folder / "config/config.yaml"
    row = path.read_text().splitlines().index("threads:") + 2
    rewrite(path, "threads:\n  embed: 1", "threads:\n\tembed: 1")
    return [f"config/config.yaml, row {row}, column 1: not valid YAML", "indent with spaces"]


def missing_files(folder):
    gone = ["ST-imgs/P1.jpg", "ST-pat/lbl/P2_labeled_coordinates.tsv", "ST-spotfiles/P3_selection.tsv"]
    for name in gone:
        (folder / DATA / name).unlink()
    return [
        "config/sections.tsv: 3 missing files", f"section P1, column image: {DATA}/{gone[0]} does not exist",
        f"section P2, column labels: {DATA}/{gone[1]} does not exist", "correct the path",
        f"section P3, column path: {DATA}/{gone[2]} does not exist",
    ]  # fmt: skip


def unknown_method_and_option(folder):
    methods = ["linaer", {"method": "spacrd", "options": {"epoch_align": 2}}]
    write_study(folder, MINI | {"methods": methods, "tasks": [MINI["tasks"][0], MINI["tasks"][0] | {"name": "again"}]})
    return [
        f"{STUDY}: unknown method `linaer`, did you mean `linear`; valid: boosting, camlu,",
        f"{STUDY}: method spacrd: unknown option `epoch_align`; valid: alpha,",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [
        a_tab_in_the_configuration,
        missing_files,
        unknown_method_and_option,
    ],
    ids=lambda fault: fault.__name__,
)
def test_a_fault_is_told_before_anything_runs(fault, fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    words = fault(folder)
    done = run(folder, "--cores", "1", "--config", "study=mini")
    assert done.returncode == 1, done.stdout
    assert [word for word in words if word not in done.stdout] == [], done.stdout
    assert done.stdout.count(words[0]) == 1, done.stdout
    assert "Traceback" not in done.stdout
    assert not (folder / "results").exists()


# --- found by a step --------------------------------------------------------------------------------------------------


def counts(folder) -> pd.DataFrame:
    """P1's counts, spots x genes."""
    return pd.read_csv(folder / DATA / "ST-cnts" / "P1.tsv.gz", sep="\t", index_col=0)


def add_st(folder, name: str, table: pd.DataFrame | None = None, region: str = "", **cells) -> str:
    """A section with P1's files, but with these counts, or all of it of one region; the path of its spots."""
    for file in ("ST-imgs/{}.jpg", "ST-spotfiles/{}_selection.tsv", "ST-cnts/{}.tsv.gz"):
        shutil.copy(folder / DATA / file.format("P1"), folder / DATA / file.format(name))
    if table is not None:
        text = table.to_csv(sep="\t").encode()
        (folder / DATA / "ST-cnts" / f"{name}.tsv.gz").write_bytes(gzip.compress(text))
    if region:
        labels = pd.read_csv(folder / st_row("P1")["labels"], sep="\t").assign(label=region)
        labels.to_csv(folder / st_row(name)["labels"], sep="\t", index=False)
    add_rows(folder, [st_row(name, cohort="spoilt", labelled=bool(region)) | cells])
    return f"results/sections/{name}/spots.h5ad"


def add_h5ad(folder, name: str, table: pd.DataFrame) -> str:
    """A section in one .h5ad with these values; the path of its spots."""
    path = f"{DATA}/{name}.h5ad"
    places = {"spatial": np.arange(2.0 * len(table)).reshape(-1, 2)}
    spots = anndata.AnnData(table.to_numpy(), obs=table[[]].rename(str), var=table.T[[]], obsm=places)
    spots.write_h5ad(folder / path)
    add_rows(folder, [{"section": name, "platform": "h5ad", "path": path, "um_per_px": "1", "spot_um": "55"}])
    return f"results/sections/{name}/spots.h5ad"


def counts_and_positions_of_two_sections(folder):
    output = add_st(folder, "elsewhere", counts(folder).rename(index=lambda spot: f"9{spot}"))
    words = [f"{DATA}/ST-cnts/elsewhere.tsv.gz and {DATA}/ST-spotfiles/elsewhere_selection.tsv have no spot in common"]
    return output, "ingest_section/elsewhere", [*words, "check that both are from one section"]


def spots_outside_the_image(folder):
    output = add_st(folder, "outside", image_scale="10")
    words = [
        f"{DATA}/ST-imgs/outside.jpg: ",
        " of 60 spots lie outside the image",
        "check columns `image`, `image_scale`",
    ]
    return output, "ingest_section/outside", words


def six_spots(folder):
    output = add_st(folder, "few", counts(folder)[:6])
    return output, "ingest_section/few", [f"{DATA}/ST-cnts/few.tsv.gz: 6 spots; at least 7 are needed", "check that"]


def a_missing_count(folder):
    table = counts(folder).astype(float)
    table.iloc[3, 5] = np.nan
    place = f"{DATA}/ST-cnts/gap.tsv.gz: spot {table.index[3]}, gene {table.columns[5]}: holds nan (1 such"
    return add_st(folder, "gap", table), "ingest_section/gap", [place, "give the raw matrix"]


def a_negative_count(folder):
    table = counts(folder).astype(float)
    table.iloc[3, 5] = -2
    place = f"{DATA}/negative.h5ad: spot {table.index[3]}, gene {table.columns[5]}: holds -2 (1 such"
    return add_h5ad(folder, "negative", table), "ingest_section/negative", [place, "give the raw matrix"]


def log_normalised_values(folder):
    table = np.log1p(counts(folder))
    place = f"{DATA}/logged.h5ad: spot {table.index[0]}, gene {table.columns[0]}: holds {table.iloc[0, 0]:.4g} ("
    return add_h5ad(folder, "logged", table), "ingest_section/logged", [place, "raw counts", "layers['counts'] or .raw"]


def a_text_file_named_h5(folder):
    outs = folder / DATA / "outs"
    (outs / "spatial").mkdir(parents=True)
    (outs / "spatial" / "tissue_positions.csv").write_text("barcode\n")
    (outs / "filtered_feature_bc_matrix.h5").write_text("barcode\tgene\n")
    add_rows(folder, [{"section": "text", "platform": "visium", "path": f"{DATA}/outs"}])
    words = [f"{DATA}/outs/filtered_feature_bc_matrix.h5: not an HDF5 file", "download it again"]
    return "results/sections/text/spots.h5ad", "ingest_section/text", words


def a_truncated_image(folder):
    output = add_st(folder, "cut")
    image = folder / DATA / "ST-imgs" / "cut.jpg"
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    words = [f"{DATA}/ST-imgs/cut.jpg: damaged or truncated image", "download it again"]
    return output, "ingest_section/cut", words


def an_unknown_word(folder):
    add_st(folder, "worded", region="tumour bed")
    words = [f"{DATA}/ST-pat/lbl/worded_labeled_coordinates.tsv: unknown words: tumour bed", "config/label_words.tsv"]
    return "results/sections/worded/labels.tsv", "label_section/worded", words


def no_gene_in_common(folder):
    add_st(folder, "renamed", counts(folder).add_prefix("ENSG"))
    words = ["sections P1 (training) and renamed (target) have no gene in common", "use the same gene names"]
    output = "results/mini/genes/renamed/none/labelled/train.h5ad"
    return output, "mini/build_fold/genes/renamed/none/labelled", words


def one_class_only(folder):
    add_st(folder, "healthy", region="connective tissue")
    words = ["training sections healthy: only non-cancer spots", "training needs spots of both classes", "`source`"]
    return "results/mini/class/P1/none/labelled/train.h5ad", "mini/build_fold/class/P1/none/labelled", words


def no_way_to_the_weights(folder):
    words = [
        "encoder uni: uni: weights cannot be downloaded",
        "set `weights: <path>`",
        "HF_HUB_OFFLINE",
    ]
    return "results/embeddings/uni/P1.h5ad", "embed_section/uni/P1", words


FOUND_BY_A_STEP = [
    counts_and_positions_of_two_sections,
    spots_outside_the_image,
    six_spots,
    a_missing_count,
    a_negative_count,
    log_normalised_values,
    a_text_file_named_h5,
    a_truncated_image,
    an_unknown_word,
    no_gene_in_common,
    one_class_only,
    no_way_to_the_weights,
]


@pytest.fixture(scope="module")
def spoilt(fresh, tmp_path_factory):
    """One run over sections that have a fault each: the folder, what the terminal showed, and the faults' facts."""
    folder = copy(fresh, tmp_path_factory.mktemp("spoilt") / "repo")
    facts = {fault: fault(folder) for fault in FOUND_BY_A_STEP}
    genes_alone = {"id": "linear_gene", "method": "linear", "options": {"modalities": ["gene"]}}
    task = {"split": "transfer", "encoders": ["none"], "methods": [genes_alone]}
    folds = [
        task | {"name": "genes", "source": 'section == "P1"', "target": 'section == "renamed"'},
        task | {"name": "class", "source": 'section == "healthy"', "target": 'section == "P1"'},
    ]
    write_study(folder, MINI | {"tasks": MINI["tasks"] + folds})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", str(folder / "no_hub"))
        outputs = [output for output, _, _ in facts.values()]
        done = run(folder, *outputs, "--cores", "1", "--keep-going", "--config", "study=mini")
    return folder, done, facts


@pytest.mark.parametrize("fault", FOUND_BY_A_STEP, ids=lambda fault: fault.__name__)
def test_a_fault_that_a_step_finds_is_told_and_leaves_nothing(fault, spoilt):
    folder, done, facts = spoilt
    output, log, words = facts[fault]
    told = (folder / "logs" / f"{log}.log").read_text()
    (message,) = re.findall(r" ERROR (.*)", told)
    assert message.startswith(words[0])
    assert [word for word in words if word not in message] == [], message
    assert "Traceback" not in told
    assert done.stdout.count(message) == 1
    assert list((folder / output).parent.glob(f"*{(folder / output).name}")) == []


def test_the_run_fails_shows_no_traceback_and_makes_what_is_sound(spoilt):
    folder, done, _ = spoilt
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert done.stdout.count("Error in rule ") == len(FOUND_BY_A_STEP)
    sound = [path.parent.name for path in folder.glob("results/sections/*/*") if path.name == "spots.h5ad"]
    assert sorted(sound) == ["P1", "healthy", "renamed", "worded"]
    assert not list(folder.glob("results/**/.*"))
