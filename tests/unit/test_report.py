"""The report: its numbers worked by hand, and a page that loads nothing and trusts no name."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from ctrflow import report

COLUMNS = [
    "study",
    "task",
    "fold",
    "encoder",
    "section",
    "patient",
    "method",
    "variant",
    "reference",
    "seed",
    "metric",
    "value",
    "note",
]
ODD = "<script>alert('S&1')</script>"


def rows(variant, seed, metric="auc", task="loo", encoder="uni", **values) -> list[tuple]:
    """One row per section; sections are named patient_number."""
    return [
        ("demo", task, section, encoder, section, section.split("_")[0], variant, variant, "", seed, metric, value, "")
        for section, value in values.items()
    ]


def frame(*parts) -> pd.DataFrame:
    return pd.DataFrame([row for part in parts for row in part], columns=COLUMNS)


@pytest.fixture
def metrics() -> pd.DataFrame:
    return frame(
        # patients of two and of one section: seed 1 (0.8 + 0.6) / 2 = 0.7 and 0.9 -> 0.80; seed 2 0.8 and 1.0 -> 0.90
        rows("deep", 1, A_1=0.8, A_2=0.6, B_1=0.9),
        rows("deep", 2, A_1=0.9, A_2=0.7, B_1=1.0),
        rows("deep", 1, "ap", A_1=0.5, A_2=0.3, B_1=0.6),
        # one seed: (0.95 + 0.93) / 2 = 0.94 and 0.84 -> 0.89
        rows("linear", 1, A_1=0.95, A_2=0.93, B_1=0.84),
        # lacks a section: no place in a comparison although its mean is the highest
        rows("partial", 1, A_1=0.99),
        rows("oracle", 1, A_1=1.0, A_2=1.0, B_1=1.0),
        *(rows(v, 1, "prevalence", A_1=0.2, A_2=0.4, B_1=0.6) for v in ("deep", "linear")),
        *(rows(v, 1, "n_spots", A_1=1300, A_2=250, B_1=300) for v in ("deep", "linear")),
        # another task and encoder do not mix in
        rows("deep", 1, task="other", A_1=0.1),
        rows("deep", 1, encoder="none", A_1=0.1),
    )


def test_summary_is_mean_over_patients_and_population_sd_over_seeds(metrics):
    table = report.summary_table(metrics, "loo", "uni")
    assert table.loc["deep", "auc"] == pytest.approx(0.85)
    assert table.loc["deep", "auc_sd"] == pytest.approx(0.05)  # of 0.80 and 0.90 with ddof = 0
    assert table.loc["deep", "ap"] == pytest.approx(0.5)  # (0.4 + 0.6) / 2
    assert table.loc["linear", "auc"] == pytest.approx(0.89)
    assert np.isnan(table.loc["linear", "auc_sd"])
    assert np.isnan(table.loc["deep", "ap_sd"])
    assert np.isnan(table.loc["linear", "ks"])
    assert table.loc["deep", ["sections", "patients", "seeds"]].tolist() == [3, 2, 2]
    assert table.index.tolist() == ["oracle", "partial", "linear", "deep"]


def test_folds_of_a_section_count_once():
    twice = frame(rows("m", 1, A_1=0.4), rows("m", 1, A_1=0.6), rows("m", 1, A_2=0.9))
    assert report.summary_table(twice, "loo", "uni").loc["m", "auc"] == pytest.approx(0.7)  # (0.5 + 0.9) / 2


def test_values_that_cannot_be_computed_are_left_out():
    holed = frame(rows("m", 1, A_1=0.8, B_1=np.nan), rows("m", 2, A_1=0.6, B_1=np.nan))
    table = report.summary_table(holed, "loo", "uni")
    assert table.loc["m", "auc"] == pytest.approx(0.7)
    assert table.loc["m", "sections"] == 1


def test_a_section_without_patient_is_its_own():
    lone = frame(rows("m", 1, A_1=0.8, A_2=0.6)).assign(patient="")
    assert report.summary_table(lone, "loo", "uni").loc["m", "patients"] == 2


def test_summary_of_nothing_is_empty():
    assert report.summary_table(frame(), "loo", "uni").empty
    assert report.comparison(frame(), "loo", "uni") is None


def test_prevalence_is_averaged_like_the_metrics(metrics):
    assert report.prevalence(metrics, "loo", "uni") == pytest.approx((0.3 + 0.6) / 2)


def test_comparison_leaves_out_controls_and_partial_methods(metrics):
    found = report.comparison(metrics, "loo", "uni", controls={"oracle"})
    assert (found["best"], found["second"]) == ("linear", "deep")
    assert found["difference"] == pytest.approx(0.04)
    assert found["sd"] == pytest.approx(0.05)
    assert found["better"] == 1  # 0.94 against 0.75 on A; 0.84 against 0.95 on B
    assert found["patients"] == 2


def test_comparison_of_one_method():
    found = report.comparison(frame(rows("m", 1, A_1=0.8)), "loo", "uni")
    assert (found["best"], found["second"]) == ("m", None)


def test_section_table_is_over_seeds(metrics):
    table = report.section_table(metrics, "loo", "uni", "auc")
    assert table.index.tolist() == ["A_1", "A_2", "B_1"]
    assert table.loc["A_1", ("deep", "mean")] == pytest.approx(0.85)
    assert table.loc["A_1", ("deep", "sd")] == pytest.approx(0.05)
    assert np.isnan(table.loc["A_1", ("linear", "sd")])
    assert np.isnan(table.loc["B_1", ("partial", "mean")])


GRID = np.array([(x, y) for y in range(5) for x in range(6)], dtype=float) * 100 + 100  # 200 µm apart at 2 µm a px


def entry(section, variants=("linear", "deep"), labels=None, image=True, **changes) -> dict:
    calls = np.r_[np.ones(12), np.zeros(18)]
    threshold = {
        "threshold": 0.5,
        "branch": "crossing",
        "means": (0.2, 0.8),
        "variances": (0.01, 0.01),
        "weights": (0.6, 0.4),
    }
    runs = [{"variant": v, "scores": calls * 0.6 + 0.2, "calls": calls, "threshold": threshold} for v in variants]
    return {
        "section": section, "task": "loo", "encoder": "uni", "patient": section.split("_")[0], "cohort": "HER2ST",
        "platform": "st", "note": "", "spatial_px": GRID, "um_per_px": 2.0, "spot_um": 100.0,
        "thumbnail": np.full((70, 80, 3), 220, dtype=np.uint8) if image else None,
        "thumbnail_scale": 0.1 if image else None, "labels": labels, "runs": runs,
    } | changes  # fmt: skip


def content(metrics, sections, **changes) -> dict:
    regimes = {"linear": "labelled_source", "deep": "normal_reference", "partial": "marker_prior", "oracle": "control"}
    return {
        "study": "demo",
        "simulated": False,
        "metrics": metrics,
        "methods": {name: {"regime": regime, "reference": ""} for name, regime in regimes.items()},
        "tasks": {"loo": "leave one patient out"},
        "sections": sections,
        "not_applicable": pd.DataFrame(
            [("loo", "uni", "stands", "no normal reference")], columns=["task", "encoder", "variant", "reason"]
        ),
        "thresholds": pd.DataFrame(
            [
                ("loo", "uni", "A_1", "deep", 1, 0.8675, "crossing"),
                ("loo", "uni", "A_1", "deep", 2, np.nan, "constant"),
            ],
            columns=["task", "encoder", "section", "variant", "seed", "threshold", "branch"],
        ),
        "sheet": pd.DataFrame([("A_1", "target", "labels transferred")], columns=["section", "role", "note"]),
        "seeds": [1, 2],
        "versions": {"torch": "2.15.0"},
        "config": {"study": "demo", "threads": 1},
        "costs": pd.DataFrame(
            [("train", "deep", 30.0, 900.0), ("train", "deep", 45.5, 1200.0), ("ingest", np.nan, 4.0, np.nan)],
            columns=["rule", "variant", "seconds", "mb"],
        ),
    } | changes


class Page(HTMLParser):
    """The tags, texts and tables of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.texts, self.cells = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        if tag == "tr":
            self.cells.append([])

    def handle_data(self, data):
        self.texts.append(data)
        if self.cells and self.cells[-1]:
            self.cells[-1][-1] += data

    def row(self, *start) -> list[str]:
        rows = [[" ".join(cell.split()) for cell in row] for row in self.cells]
        [found] = [row for row in rows if row[: len(start)] == list(start)]
        return found

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def render(tmp_path, what) -> tuple[str, Page]:
    report.write_report(what, tmp_path / "out" / "report.html")
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    return html, Page(html)


@pytest.fixture
def no_drawing(monkeypatch):
    """Pictures cost most of the time of a page; tests of its text do without."""
    monkeypatch.setattr(report.plots, "section_panel", lambda *_: b"\x89PNG")
    monkeypatch.setattr(report.plots, "score_histogram", lambda *_: b"\x89PNG")


LABELS = np.r_[np.ones(10), np.zeros(15), np.full(5, np.nan)]


def test_source_spots_as_normal_reference_are_declared(tmp_path, metrics):
    """Where no healthy section exists a pathologist's labels are used after all, and every table says so."""
    told = metrics.assign(reference=np.where(metrics["variant"] == "deep", "source_negatives", ""))
    report.write_report(content(told, [entry("A_1")]), tmp_path / "r.html")
    page = Page((tmp_path / "r.html").read_text())
    cells = {" ".join(cell.split()) for row in page.cells for cell in row}
    assert "deep normal reference: source spots" in cells
    assert {"linear", "deep source spots"} <= cells
    assert "its normal tissue are the spots labelled 0 of the source sections" in " ".join(page.texts)
    report.write_report(content(metrics, [entry("A_1")]), tmp_path / "plain.html")
    assert "source spots" not in (tmp_path / "plain.html").read_text()


def test_page_loads_nothing(tmp_path, metrics):
    html, page = render(tmp_path, content(metrics, [entry("A_1", labels=LABELS), entry("B_1", image=False)]))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "video", "audio", "source", "base"}
    loads = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "srcset", "data")
    ]
    assert loads
    assert all(re.match(r"data:image/(png|jpeg);base64,", value) for value in loads)
    links = [attributes["href"] for _, attributes in page.tags if "href" in attributes]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"url\(|@import", html)


@pytest.mark.usefixtures("no_drawing")
def test_every_link_has_its_target_and_ids_are_unique(tmp_path, metrics):
    sections = [entry("A_1", labels=LABELS), entry("A 1"), entry("A_1", encoder="none")]
    _, page = render(tmp_path, content(metrics, sections))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"][1:] for _, attributes in page.tags if "href" in attributes} <= set(ids)


@pytest.mark.usefixtures("no_drawing")
def test_numbers_on_the_page(tmp_path, metrics):
    metrics = metrics[(metrics["task"] == "loo") & (metrics["encoder"] == "uni")]
    _, page = render(tmp_path, content(metrics, [entry("A_1", labels=LABELS), entry("B_1", labels=LABELS)]))
    assert page.row("deep normal reference")[1:3] == ["0.850 ± 0.050", "0.500"]
    assert page.row("linear labelled source")[1:3] == ["0.890", "–"]
    assert page.row("oracle control")[1] == "1.000"
    assert page.row("partial marker prior on 1 of 3 sections")[1] == "0.990"
    assert page.row("chance")[1:6] == ["0.500", "0.450", "0.450", "–", "0.000"]
    assert (
        "linear beats deep by 0.040 mean AUC, less than the sd over seeds (0.890 against 0.850; better on 1 of 2"
        in page.text
    )
    # 12 of 30 spots; 200 µm squares: 12 x 0.04 mm²; 10 of 25 labelled spots
    assert page.row("A_1", "A", "linear uni")[3:] == ["40.0 %", "12 of 30", "0.48", "40.0 % to 40.0 %", "40.0 %"]
    assert page.row("A_1", "A", "1,300", "0.200", "0.990")[5:] == ["0.950", "0.850 ± 0.050", "1.000"]
    assert page.row("train", "deep") == ["train", "deep", "2", "1 min 16 s", "45.5 s", "1,200"]
    assert page.row("ingest")[-1] == "–"
    assert page.row("loo", "uni", "A_1", "deep", "1")[5:] == ["0.8675", "crossing"]
    assert page.row("loo", "uni", "stands")[3] == "no normal reference"


@pytest.mark.usefixtures("no_drawing")
def test_best_of_a_column_is_marked_among_methods_that_have_all_sections(tmp_path, metrics):
    html, _ = render(tmp_path, content(metrics, []))
    [table] = re.findall(
        r'<table>(?:(?!</table>).)*<th scope="col">method</th>.*?</table>', html.split("loo · uni")[1], re.S
    )[:1]
    marked = re.findall(r'<td class="n best">([^<]*)</td>', table)
    assert marked == ["0.890", "0.500"]  # AUC: linear, not partial nor the oracle; AP: deep alone has one


@pytest.mark.usefixtures("no_drawing")
def test_images_have_alternative_texts(tmp_path, metrics):
    _, page = render(tmp_path, content(metrics, [entry("A_1", labels=LABELS)]))
    texts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert len(texts) == 4  # two methods, a picture and a histogram each
    assert any("H&E, label, score, call" in text and "12 of 30 scored spots" in text for text in texts)


@pytest.mark.usefixtures("no_drawing")
def test_sd_over_seeds_is_a_panel_where_there_are_several(tmp_path, metrics):
    two, one = entry("A_1", labels=LABELS), entry("B_1", labels=LABELS)
    two["runs"][0]["sd"], two["runs"][1]["sd"] = np.full(30, 0.1), None
    html, page = render(tmp_path, content(metrics, [two, one]))
    texts = {a["alt"].split(": ")[0]: a["alt"] for tag, a in page.tags if tag == "img" and "side by side" in a["alt"]}
    assert "H&E, label, score, call, sd over seeds side by side" in texts["Section A_1, linear"]
    assert sum("sd over seeds" in text for text in texts.values()) == 1
    assert "when the training is repeated" in page.text
    assert html.count("max-width:2245px") == 1  # five panels of 445 px
    assert html.count("max-width:1800px") == 3
    _, page = render(tmp_path, content(metrics, [one]))
    assert "when the training is repeated" not in page.text


CURVES = pd.DataFrame(
    {"task": "loo", "encoder": "uni", "variant": np.repeat(["oracle", "deep", "linear"], 10)}
    | {"bin": [*range(1, 11)] * 3, "mean_score": np.nan, "share": np.nan, "spots": 0}
)
CURVES.loc[[13, 29], ["mean_score", "share", "spots"]] = [[0.375, 0.25, 1300], [0.98, 0.6, 40]]


@pytest.mark.usefixtures("no_drawing")
def test_calibration_error_is_a_column_and_the_lowest_is_best(tmp_path, metrics):
    metrics = pd.concat(
        [
            metrics[(metrics["task"] == "loo") & (metrics["encoder"] == "uni")],
            frame(
                rows("deep", 1, "ece", A_1=0.2, A_2=0.1, B_1=0.05),  # 0.15 and 0.05: 0.10
                rows("deep", 2, "ece", A_1=0.2, A_2=0.2, B_1=0.04),  # 0.20 and 0.04: 0.12
                rows("linear", 1, "ece", A_1=0.1, A_2=0.4, B_1=0.25),
                rows("oracle", 1, "ece", A_1=0.0, A_2=0.0, B_1=0.0),
                rows("deep", 1, "brier", A_1=0.7),
            ),
            frame(rows("partial", 1, "ece", A_1=np.nan, A_2=np.nan, B_1=np.nan)).assign(note="not a probability"),
        ]
    )
    html, page = render(tmp_path, content(metrics, []))
    assert page.row("method")[6:] == ["ECE", "seeds"]
    assert page.row("deep normal reference")[6] == "0.110 ± 0.010"
    assert page.row("linear labelled source")[6] == "0.250"
    assert page.row("partial marker prior on 1 of 3 sections")[6] == "–"
    assert page.row("chance")[6] == "–"
    marked = re.findall(r'<td class="n best">([^<]*)</td>', html)
    # AUC and AP over sections, ECE the lowest but for the oracle; then sections: AUC, AP, ECE
    assert marked[:3] == ["0.890", "0.500", "0.110 ± 0.010"]
    assert marked[-3:] == ["0.100", "0.150 ± 0.050", "0.045 ± 0.005"]
    assert "Not computed: ECE of partial: not a probability." in page.text
    assert "expected calibration error, is how far" in page.text


@pytest.mark.usefixtures("no_drawing")
def test_reliability_curves_stand_with_their_task_and_encoder(tmp_path, metrics, monkeypatch):
    drawn = []
    monkeypatch.setattr(report.plots, "reliability_panels", lambda curves: drawn.append(curves) or b"\x89PNG")
    _, page = render(tmp_path, content(metrics, [], reliability=CURVES))
    [curves] = drawn  # of three results one has curves
    assert [name for name, *_ in curves] == ["linear", "deep", "oracle"]  # controls last
    _, mean_score, share, spots = curves[1]
    assert (mean_score[3], share[3], spots[3]) == (0.375, 0.25, 1300)
    assert page.row("deep", "0.3 to 0.4") == ["deep", "0.3 to 0.4", "0.375", "0.250", "1,300"]
    assert page.row("linear", "0.9 to 1")[2:] == ["0.980", "0.600", "40"]
    assert page.text.count("no calibration was fitted on targets") == 1
    assert sum("Reliability curves of linear, deep, oracle" in a["alt"] for tag, a in page.tags if tag == "img") == 1


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize("changes", [{}, {"reliability": CURVES[:0]}, {"reliability": CURVES.assign(task="other")}])
def test_without_probabilities_there_is_no_reliability_curve(tmp_path, metrics, changes):
    metrics = metrics[metrics["task"] == "loo"]
    _, page = render(tmp_path, content(metrics, [], **changes))
    assert "calibration was fitted" not in page.text
    assert "expected calibration error, is" not in page.text


@pytest.mark.usefixtures("no_drawing")
def test_names_are_escaped(tmp_path):
    metrics = frame(rows("linear", 1, A_1=0.8)).assign(section=ODD, patient=ODD, variant=ODD)
    what = content(
        metrics,
        [entry(ODD, variants=(ODD,), labels=LABELS, note=ODD, patient=ODD, cohort=ODD)],
        study=ODD,
        methods={ODD: {"regime": "control", "reference": ODD}},
        config={ODD: ODD},
    )
    html, page = render(tmp_path, what)
    assert "<script" not in html
    assert not any(tag == "script" for tag, _ in page.tags)
    assert ODD in page.text


@pytest.mark.usefixtures("no_drawing")
def test_unlabelled_study(tmp_path):
    _, page = render(tmp_path, content(frame(), [entry("mine")]))
    assert "No section is labelled" in page.text
    assert "not labelled" in page.text
    assert "Measured" not in page.text
    assert page.row("mine", "mine")[2] == "linear uni"
    [alt] = [a["alt"] for tag, a in page.tags if tag == "img" and "linear:" in a["alt"]]
    assert "H&E, score, call" in alt


@pytest.mark.usefixtures("no_drawing")
def test_labelled_sections_of_one_class_are_explained(tmp_path):
    metrics = frame(rows("linear", 1, A_1=np.nan)).assign(note="one class only (all spots cancer)")
    _, page = render(tmp_path, content(metrics, [entry("A_1", labels=np.ones(30))]))
    assert "could not be evaluated" in page.text
    assert "A_1, AUC: one class only (all spots cancer)" in page.text


def test_expression_only_section(tmp_path, metrics):
    _, page = render(tmp_path, content(metrics, [entry("A_1", image=False, labels=LABELS)]))
    assert "no H&E" in page.text
    pictures = [a for tag, a in page.tags if tag == "img" and "side by side" in a["alt"]]
    assert all(a["src"].startswith("data:image/png") and "H&E" not in a["alt"] for a in pictures)


@pytest.mark.usefixtures("no_drawing")
def test_methods_beyond_the_first_are_folded_and_controls_come_last(tmp_path, metrics):
    variants = ("oracle", "a", "b", "c", "linear", "deep")
    html, page = render(tmp_path, content(metrics, [entry("A_1", variants=variants, labels=LABELS)]))
    assert "3 more methods" in page.text
    shown = re.findall(r"<figcaption><b>(.*?)</b>", html)
    assert shown == ["linear", "deep", "a", "b", "c", "oracle"]


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.usefixtures("no_drawing")
def test_simulated_data_are_flagged(tmp_path, metrics, simulated):
    html, page = render(tmp_path, content(metrics, [entry("A_1", labels=LABELS)], simulated=simulated))
    assert ("Simulated data." in page.text) is simulated
    assert ("<title>SIMULATED" in html) is simulated


@pytest.mark.usefixtures("no_drawing")
def test_no_target_at_all(tmp_path):
    _, page = render(tmp_path, content(frame(), []))
    assert "No target section was scored" in page.text


@pytest.mark.usefixtures("no_drawing")
def test_what_the_check_of_a_section_warns_of_is_shown(tmp_path, metrics):
    warned = [entry("A_1", concerns=["problem: x and y look swapped"]), entry("B_1")]
    _, page = render(tmp_path, content(metrics, warned))
    assert page.text.count("problem: x and y look swapped") == 1


def kept_losses(variant="deep", fold="A", seed=1, stage="align", term="loss", values=(2.0, 1.0)) -> pd.DataFrame:
    """The losses of one run, stage and term, as results.loss_table gives them."""
    rows = [("loo", fold, "uni", variant, seed, stage, i, term, value) for i, value in enumerate(values, 1)]
    return pd.DataFrame(rows, columns=["task", "fold", "encoder", "variant", "seed", "stage", "epoch", "term", "value"])


def test_last_losses_are_means_over_runs():
    found = report.last_losses(
        pd.concat(
            [
                kept_losses(values=(4.0, 3.0, 1.0)),
                kept_losses(term="divergence", values=(8.0, 7.0, 6.0)),
                kept_losses(seed=2, values=(2.0, 0.5)),  # shorter: its own last epoch counts
                kept_losses(fold="B", values=(5.0, 9.0, np.inf)),
                kept_losses(fold="C", stage="fuse", values=(3.0,)),
                kept_losses(fold="C", stage="late", values=(3.0, np.nan)),
            ]
        )
    )
    assert found["stage"].tolist() == ["align", "align", "fuse", "late"]
    assert found["term"].tolist() == ["loss", "divergence", "loss", "loss"]
    align = found.iloc[0]
    assert align[["runs", "epochs", "lost"]].tolist() == [3, "2 to 3", 1]
    # of (4, 1) and (2, 0.5): the third run has no last loss
    assert align[["first", "last", "sd"]].tolist() == [3.0, 0.75, 0.25]
    assert found.iloc[1][["runs", "epochs", "first", "last"]].tolist() == [1, "3", 8.0, 6.0]
    assert np.isnan(found["sd"].iloc[1])
    assert found["lost"].tolist() == [1, 0, 0, 1]
    assert np.isnan(found["last"].iloc[3])


def test_training_has_a_picture_and_its_last_losses(tmp_path, metrics, monkeypatch):
    drawn = []
    monkeypatch.setattr(report.plots, "loss_curves", lambda rows: drawn.append(rows) or b"\x89PNG")
    kept = [
        kept_losses(seed=1, values=(4.0, 1.0)),
        kept_losses(seed=2, values=(2.0, 0.5)),
        kept_losses(seed=1, stage="fuse", values=(7.0, 6.0)),
        kept_losses("other", values=(3.0, 2.5)),
    ]
    _, page = render(tmp_path, content(metrics, [], losses=pd.concat(kept)))
    assert [len(rows) for rows in drawn] == [6, 2]
    assert page.row("align", "loss", "2") == ["align", "loss", "2", "2", "3", "0.75 ± 0.25"]
    assert page.row("fuse", "loss") == ["fuse", "loss", "1", "2", "7", "6"]
    texts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert texts == [
        "Loss curves of deep, loo, uni, mean of 2 runs: align from 3 to 0.75; fuse from 7 to 6.",
        "Loss curves of other, loo, uni, mean of 1 run: align from 3 to 2.5.",
    ]
    assert "nothing of a target section is in them" in page.text
    assert "still falls at the right border had too few epochs" in page.text
    assert {"href": "#training"} in [attributes for tag, attributes in page.tags if tag == "a"]
    assert not [True for _, attributes in page.tags if attributes.get("class") == "banner"]


@pytest.mark.parametrize("losses", [{}, {"losses": kept_losses(values=())}])
@pytest.mark.usefixtures("no_drawing")
def test_without_losses_there_is_no_training_on_the_page(tmp_path, metrics, losses):
    _, page = render(tmp_path, content(metrics, [], **losses))
    assert "Training" not in page.text


def test_trainings_that_went_wrong_are_told_and_unfolded(tmp_path, metrics, monkeypatch):
    monkeypatch.setattr(report.plots, "loss_curves", lambda rows: b"\x89PNG")
    kept = [kept_losses(name) for name in "abc"]
    kept += [kept_losses("bad", seed=seed, values=(2.0, np.nan)) for seed in (1, 2)]
    kept += [kept_losses("bad", seed=3), kept_losses("bad", seed=1, stage="fuse", values=(1.0, 1.5))]
    html, page = render(tmp_path, content(metrics, [], losses=pd.concat(kept)))
    told = [text for text in page.texts if "the loss is" in text]
    assert told == [
        "align: the loss is not finite at the end (loss) in 2 of 3 runs (fold A seed 1, fold A seed 2): "
        "lower the learning rate.",
        "fuse: the loss is higher at the end than at the start in 1 of 3 runs (fold A seed 1): "
        "lower the learning rate.",
    ]
    assert page.row("align", "loss", "3")[3:] == ["2", "2", "1 (not finite: 2 runs)"]
    training = html.split('id="training"')[1]
    openings = re.findall(r'<details class="section card"( open)?>\s*<summary><h3>(\w+)', training)
    assert openings == [(" open", "a"), (" open", "b"), ("", "c"), (" open", "bad")]


def test_names_in_losses_are_escaped(tmp_path, metrics):
    kept = kept_losses(ODD, stage=ODD, values=(1.0, 2.0)).assign(task=ODD, encoder=ODD, fold=ODD)
    html, page = render(tmp_path, content(metrics, [], losses=kept))
    assert "<script" not in html
    assert f"{ODD}: the loss is higher at the end" in page.text
