"""The check of a section: its numbers, the paper's, and that findings are logged and contain no label of a spot."""

import json
import logging
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from PIL import Image as pil
from scipy import sparse

from ctrflow import logs, storage
from ctrflow.sections.check import check_section, concerns

ROOT = Path(__file__).parents[3]
COUNTS = np.array([[1, 0, 4], [0, 0, 2], [3, 1, 1], [0, 0, 0]])  # 5, 2, 5 and 0 counts of 2, 1, 3 and 0 genes


def spots_of(name: str = "S1", counts=COUNTS, image: str = "") -> AnnData:
    n = len(counts)
    spots = AnnData(
        sparse.csr_matrix(counts, dtype=np.float32), obs=pd.DataFrame(index=[f"barcode{i}" for i in range(n)])
    )
    spots.obsm["spatial"] = np.column_stack([np.arange(n) % 8, np.arange(n) // 8]) * 20.0 + 30
    spots.uns["section"] = {
        "section": name, "platform": "visium", "um_per_px": 0.5, "spot_um": 55.0, "image": image, "image_scale": 1.0,
    }  # fmt: skip
    return spots


def labels_of(*values) -> pd.DataFrame:
    return pd.DataFrame({"spot": [f"barcode{i}" for i in range(len(values))], "label": values})


def published_of(**numbers) -> pd.DataFrame:
    rows = [("SpaCRD", "Table S1", "S1", "-", metric, value) for metric, value in numbers.items()]
    rows += [
        ("SpaCRD", "Table S1", "S2", "-", "n_spots", 9999),
        ("SpaCRD", "Table 1", "S1", "SpaCRD", "n_spots", 9998),
        ("MEATRD", "Table S1", "S1", "-", "n_spots", 9997),
    ]
    return pd.DataFrame(rows, columns=["paper", "table", "dataset", "method", "metric", "mean"])


def found(result: dict, what: str) -> dict | None:
    return next((one for one in result["findings"] if one["what"] == what), None)


def test_numbers_of_a_section():
    result = check_section(spots_of(), labels_of(1.0, 0.0, np.nan, 1.0))
    assert {key: result[key] for key in result if key != "findings"} == {
        "section": "S1",
        "platform": "visium",
        "um_per_px": 0.5,
        "spot_um": 55.0,
        "spots": 4,
        "genes": 3,
        "median_counts": 3.5,  # of 0, 2, 5, 5
        "median_genes": 1.5,  # of 0, 1, 2, 3
        "empty_share": 0.25,
        "labelled": 3,
        "cancer_share": 0.66667,
    }
    assert found(result, "counts")["level"] == "warning"
    assert "1 spots (25.0 %) have no count at all" in found(result, "counts")["message"]


def test_no_labels_give_no_share_and_full_spots_are_ok():
    result = check_section(spots_of(counts=COUNTS[:3]))
    assert (result["labelled"], result["cancer_share"]) == (0, None)
    assert found(result, "counts")["level"] == "ok"
    assert check_section(spots_of(), labels_of(*[np.nan] * 4))["cancer_share"] is None


def test_concerns_are_warnings_and_problems():
    (line,) = concerns(check_section(spots_of()))
    assert line.startswith("warning: ")
    assert "1 spots (25.0 %)" in line
    assert concerns(check_section(spots_of(counts=COUNTS[:3]))) == []


def test_agreement_with_the_papers_numbers():
    result = check_section(spots_of(), labels_of(1, 0, 0, 1), published_of(n_spots=4, cancer_ratio=0.505))
    assert [found(result, f"published_{what}")["level"] for what in ("spots", "cancer_share")] == ["ok", "ok"]


def test_deviations_from_the_papers_numbers_are_reported_with_both():
    result = check_section(spots_of(), labels_of(1, 0, 0, 1), published_of(n_spots=5, cancer_ratio=0.506))
    spots, share = found(result, "published_spots"), found(result, "published_cancer_share")
    assert (spots["level"], share["level"]) == ("warning", "warning")
    assert "4 spots here, 5 in SpaCRD's Table S1" in spots["message"]
    assert "2 of 4 labelled spots are cancer, 0.500 here, 0.506 in SpaCRD's Table S1" in share["message"]
    assert share["values"] == {"cancer_share": 0.5, "published": 0.506}


def test_a_share_that_cannot_be_compared_gives_a_warning():
    result = check_section(spots_of(), None, published_of(n_spots=4, cancer_ratio=0.506))
    share = found(result, "published_cancer_share")
    assert share["level"] == "warning"
    assert "no labels here" in share["message"]
    assert "0.506" in share["message"]


def test_a_section_that_the_paper_does_not_have():
    result = check_section(spots_of("S3"), labels_of(1, 0, 0, 1), published_of(n_spots=5, cancer_ratio=0.9))
    assert [one["what"] for one in result["findings"]] == ["image", "counts"]


def test_the_shipped_table_knows_the_sections_of_the_paper():
    # HER2ST A1 by the pathologist's words: 303 of 346; the paper has 311 of them
    published = storage.read_tsv(ROOT / "config" / "published.tsv")
    result = check_section(
        spots_of("STHBC_A", np.ones((346, 2))), labels_of(*[1.0] * 303, *[0.0] * 43), published=published
    )
    assert found(result, "published_spots")["level"] == "ok"
    share = found(result, "published_cancer_share")
    assert share["level"] == "warning"
    assert "303 of 346 labelled spots are cancer, 0.876 here, 0.899 in" in share["message"]
    sections = published[(published.paper == "SpaCRD") & (published.table == "Table S1")].dataset.unique()
    assert len(sections) == 23


def test_findings_go_to_the_log(caplog):
    with caplog.at_level(logging.INFO, "ctrflow"):
        check_section(spots_of(), None, published_of(n_spots=5))
    levels = {record.getMessage().split(": ")[2]: record.levelname for record in caplog.records}
    assert levels == {"image": "INFO", "counts": "WARNING", "published_spots": "WARNING"}
    assert all(record.getMessage().startswith("S1: ") for record in caplog.records)


def test_a_wrong_image_is_in_the_log_and_stops_nothing(tmp_path, caplog):
    pixels = np.full((300, 400, 3), 245, np.uint8)
    pixels[200:280, 250:390] = np.random.default_rng(0).integers(80, 150, (80, 140, 1))
    pil.fromarray(pixels).save(tmp_path / "a.png")
    result = check_section(spots_of(counts=np.ones((40, 2)), image=str(tmp_path / "a.png")))
    assert found(result, "placement")["level"] == "problem"
    records = [record for record in caplog.records if "problem: placement" in record.getMessage()]
    assert [record.levelname for record in records] == ["WARNING"]
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("labelled", [True, False])
def test_the_step_writes_check_and_picture(tmp_path, monkeypatch, labelled):
    opened = []
    monkeypatch.setattr(logs, "setup", opened.append)  # it would take over the logging of this process
    pixels = np.random.default_rng(0).integers(90, 250, (100, 120, 1)).repeat(3, axis=2).astype(np.uint8)
    pil.fromarray(pixels).save(tmp_path / "a.png")
    storage.write_h5ad(spots_of(image=str(tmp_path / "a.png")), tmp_path / "spots.h5ad")
    storage.write_tsv(labels_of(1, 0, np.nan, 1), tmp_path / "labels.tsv")
    storage.write_tsv(published_of(n_spots=4, cancer_ratio=0.667), tmp_path / "published.tsv")
    snakemake = SimpleNamespace(
        log=[str(tmp_path / "log")],
        input=SimpleNamespace(
            spots=str(tmp_path / "spots.h5ad"),
            labels=[str(tmp_path / "labels.tsv")] if labelled else [],
            published=str(tmp_path / "published.tsv"),
            vendor_image=[],
        ),
        output=SimpleNamespace(
            check=str(tmp_path / "check.json"),
            overlay=str(tmp_path / "overlay.png"),
            yardsticks=str(tmp_path / "yardsticks.tsv"),
        ),
    )
    runpy.run_path(str(ROOT / "scripts" / "check_section.py"), init_globals={"snakemake": snakemake})
    text = (tmp_path / "check.json").read_text()
    result = json.loads(text)
    assert result["cancer_share"] == (0.66667 if labelled else None)
    assert found(result, "published_cancer_share")["level"] == ("ok" if labelled else "warning")
    # truth stays apart: no spot is named, and no list is as long as the spots are many
    assert "barcode" not in text
    assert all(not isinstance(value, list) for value in result.values() if value is not result["findings"])
    assert pil.open(tmp_path / "overlay.png").size[0] > 800
    assert storage.read_tsv(tmp_path / "yardsticks.tsv")["library_size"].tolist() == [5, 2, 5, 0]
    assert opened == [str(tmp_path / "log")]
