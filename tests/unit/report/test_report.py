"""The report: its numbers worked by hand, and a page that loads nothing and trusts no name."""

import json
import re
from base64 import b64decode, b64encode
from hashlib import sha256
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from ctrflow import report
from ctrflow.report import page as pages
from ctrflow.report import training, words
from ctrflow.results.verdict import FOUND, NONE, OPEN, Verdict
from ctrflow.within import tabulate
from reports import JUDGES, content, metric_frame, metric_rows, study, target

ODD = "<script>alert('S&1')</script>"
BREAKOUT = '</script><script>alert(1)</script><img src="x" onerror="alert(2)">\u2028'
PNG = b"\x89PNG\r\n\x1a\n"
LABELS = np.r_[np.ones(10), np.zeros(15), np.full(5, np.nan)]


@pytest.fixture
def metrics() -> pd.DataFrame:
    return metric_frame(
        # patients of two and of one section: seed 1 (0.8 + 0.6) / 2 = 0.7 and 0.9 -> 0.80; seed 2 0.8 and 1.0 -> 0.90
        metric_rows("deep", 1, A_1=0.8, A_2=0.6, B_1=0.9),
        metric_rows("deep", 2, A_1=0.9, A_2=0.7, B_1=1.0),
        metric_rows("deep", 1, "ap", A_1=0.5, A_2=0.3, B_1=0.6),
        # one seed: (0.95 + 0.93) / 2 = 0.94 and 0.84 -> 0.89
        metric_rows("linear", 1, A_1=0.95, A_2=0.93, B_1=0.84),
        # lacks a section: not compared although its mean is the highest
        metric_rows("partial", 1, A_1=0.99),
        metric_rows("oracle", 1, A_1=1.0, A_2=1.0, B_1=1.0),
        *(metric_rows(v, 1, "prevalence", A_1=0.2, A_2=0.4, B_1=0.6) for v in ("deep", "linear")),
        *(metric_rows(v, 1, "n_spots", A_1=1300, A_2=250, B_1=300) for v in ("deep", "linear")),
    )


@pytest.fixture
def three_results(metrics) -> pd.DataFrame:
    """The metrics with another task and another encoder, which must stay separate."""
    others = [metric_rows("deep", 1, A_1=0.1, **where) for where in ({"task": "other"}, {"encoder": "none"})]
    return pd.concat([metrics, metric_frame(*others)])


class Page(HTMLParser):
    """The tags, texts, scripts and tables of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.texts, self.cells, self.scripts = [], [], [], []
        self.inside = None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.inside = tag if tag in ("script", "style") else None
        if tag == "script":
            self.scripts.append([attributes, ""])
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        self.inside = None
        if tag == "tr":
            self.cells.append([])

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1][1] += data
        if self.inside:
            return
        self.texts.append(data)
        if self.cells and self.cells[-1]:
            self.cells[-1][-1] += data

    @property
    def rows(self) -> list[list[str]]:
        return [[" ".join(cell.split()) for cell in row] for row in self.cells]

    def row(self, *start) -> list[str]:
        [found] = [row for row in self.rows if row[: len(start)] == list(start)]
        return found

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag, **wanted) -> list[dict]:
        """The attributes of the tags that have these; `data_name` stands for data-name."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in wanted.items()}
        return [of for one, of in self.tags if one == tag and wanted.items() <= of.items()]

    def json(self, identity: str):
        [text] = [text for of, text in self.scripts if of.get("id") == identity]
        return json.loads(text)


def render(tmp_path, what) -> tuple[str, Page]:
    report.write_report(what, tmp_path / "out" / "report.html")
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    return html, Page(html)


def decoded(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(b64decode(text, validate=True), dtype=kind)


def tables_of(html: str) -> dict[str, str]:
    """The named tables of a page, as HTML."""
    return dict(re.findall(r'<table data-name="([^"]*)">(.*?)</table>', html, re.S))


@pytest.fixture
def no_drawing(monkeypatch):
    """Pictures and Bokeh take most of the time; tests of texts skip them."""
    monkeypatch.setattr(pages.plots, "call_picture", lambda *_: PNG)
    monkeypatch.setattr(pages.maps, "plot_items", dict)
    monkeypatch.setattr(pages.maps, "scripts", lambda: ["Bokeh", "WebGL"])


# --- the page --------------------------------------------------------------------------------------------------------


def test_page_loads_nothing(tmp_path, metrics):
    sections = [target("A_1", labels=LABELS), target("B_1", image=False)]
    html, page = render(tmp_path, content(metrics, sections, figures=[FIGURE]))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"link", "iframe", "object", "embed", "video", "audio", "source", "base", "form"}
    loads = [value for _, of in page.tags for name, value in of.items() if name in ("src", "srcset", "data", "poster")]
    assert len(loads) == 3  # one gallery picture per section, and the figure
    assert all(re.match(r"data:image/(png|jpeg);base64,", value) for value in loads)
    links = [of["href"] for _, of in page.tags if "href" in of]
    assert links
    assert all(link.startswith("#") for link in links)
    style = html.split("<style>")[1].split("</style>")[0]
    assert not re.search(r"url\(|@import", style)


def test_only_the_scripts_of_the_report_may_run(tmp_path, metrics):
    """Only scripts whose digest is in the policy; data elements are not run."""
    _, page = render(tmp_path, content(metrics, [target("A_1", labels=LABELS)]))
    [policy] = [of["content"] for of in page.all("meta", http_equiv="Content-Security-Policy")]
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed["default-src"] == "'none'"
    assert set(allowed["img-src"].split()) == {"data:", "blob:"}
    assert set(allowed) == {"default-src", "img-src", "style-src", "script-src"}
    run = [(of, text) for of, text in page.scripts if of.get("type") != "application/json"]
    assert all(of == {} for of, _ in run)
    digests = [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for _, text in run]
    assert sorted(digests) == sorted(allowed["script-src"].split())
    assert len(digests) == 4  # Bokeh, its WebGL, its settings, and ours
    assert not [name for _, of in page.tags for name in of if name.startswith("on")]
    data = [of["id"] for of, _ in page.scripts if of.get("type") == "application/json"]
    assert data == ["geometry-section-a-1", "runs-section-a-1", "plots"]


@pytest.mark.usefixtures("no_drawing")
def test_every_link_has_its_target_and_ids_are_unique(tmp_path, three_results):
    sections = [target("A_1", labels=LABELS), target("A 1"), target("A_1", encoder="none")]
    _, page = render(tmp_path, content(three_results, sections, figures=[FIGURE], published=TABLE))
    ids = [of["id"] for _, of in page.tags if "id" in of]
    assert len(ids) == len(set(ids))
    links = {of["href"][1:] for _, of in page.tags if "href" in of}
    assert links <= set(ids)
    assert {"published", "figures", "evaluation", "section-a-1", "section-a-1-2"} <= links
    assert {of["data-geometry"] for of in page.all("div", class_="map")} <= set(ids)


@pytest.mark.usefixtures("no_drawing")
def test_controls_have_names(tmp_path, metrics):
    """Every input is inside a label or has its own, and every map has a name."""
    html, page = render(tmp_path, content(metrics, [target("A_1", labels=LABELS)]))
    outside = re.sub(r"<label.*?</label>", "", html.split("<main>")[1], flags=re.S)
    bare = [of for tag, of in Page(outside).tags if tag in ("input", "select")]
    assert [of["aria-label"] for of in bare] == ["Score threshold", "Score threshold, as a number"]
    [plot] = page.all("div", class_="plot")
    assert plot["tabindex"] == "0"
    assert "Map of section A_1" in plot["aria-label"]


@pytest.mark.usefixtures("no_drawing")
def test_names_are_escaped(tmp_path):
    metrics = metric_frame(metric_rows("linear", 1, A_1=0.8)).assign(section=ODD, patient=ODD, variant=ODD)
    what = content(
        metrics,
        [target(ODD, variants=(ODD,), labels=LABELS, note=ODD, patient=ODD, cohort=ODD)],
        study=ODD,
        methods={ODD: {"regime": "control", "reference": ODD}},
        config={ODD: ODD},
    )
    html, page = render(tmp_path, what)
    plain, _ = render(tmp_path, content(metric_frame(), [target("A_1")]))
    assert html.count("<script>") == plain.count("<script>")
    assert ODD in page.text


@pytest.mark.usefixtures("no_drawing")
def test_nothing_planted_becomes_an_element(tmp_path, monkeypatch):
    """Whatever a sheet, a label file or an expression table may hold."""
    monkeypatch.setattr(pages.plots, "loss_curves", lambda rows: PNG)
    variant = BREAKOUT
    metrics = metric_frame(metric_rows("linear", 1, A_1=0.8), metric_rows("linear", 1, "ap", A_1=np.nan)).assign(
        study=BREAKOUT, task=BREAKOUT, encoder=BREAKOUT, section=BREAKOUT, patient=BREAKOUT, variant=variant,
        note=BREAKOUT,
    )  # fmt: skip
    section = target(
        BREAKOUT, variants=(variant,), labels=LABELS, note=BREAKOUT, patient=BREAKOUT, cohort=BREAKOUT, task=BREAKOUT,
        encoder=BREAKOUT, platform=BREAKOUT, concerns=[BREAKOUT], spots=[f"{BREAKOUT}{n}" for n in range(30)],
        regions=[BREAKOUT] * 30,
    )  # fmt: skip
    section["runs"][0]["verdict"] = Verdict(FOUND, (BREAKOUT,), (BREAKOUT,)).as_dict()
    gene = pd.DataFrame({BREAKOUT: [BREAKOUT]})
    figure = {"title": BREAKOUT, "caption": BREAKOUT, "task": BREAKOUT, "encoder": BREAKOUT, "reason": BREAKOUT}
    what = content(
        metrics,
        [section],
        study=BREAKOUT,
        note=BREAKOUT,
        methods={variant: {"regime": "labelled_source", "reference": BREAKOUT}},
        tasks={BREAKOUT: BREAKOUT},
        config={BREAKOUT: BREAKOUT},
        versions={BREAKOUT: BREAKOUT},
        published=gene,
        efficiency=RUNS.assign(task=BREAKOUT, encoder=BREAKOUT, variant=BREAKOUT),
        sheet=gene,
        figures=[figure | {"picture": None}, figure | {"picture": PNG}],
        losses=kept_losses(BREAKOUT, stage=BREAKOUT, values=(1.0, 2.0)).assign(task=BREAKOUT, encoder=BREAKOUT),
    )
    _, page = render(tmp_path, what)
    assert len(page.scripts) == 6  # three that run; geometry, runs, plots
    assert not [of for _, of in page.tags if "onerror" in of]
    assert not [of for of in page.all("img") if of["src"] == "x"]
    assert page.text.count(BREAKOUT.replace("\u2028", "").strip()) >= 20
    identity = "section-script-script-alert-1-script-img-src-x-onerror-alert-2"
    geometry = page.json(f"geometry-{identity}")
    assert geometry["section"] == BREAKOUT
    assert geometry["spots"][29] == f"{BREAKOUT}29"
    assert geometry["regions"]["words"] == [BREAKOUT]
    assert page.json(f"runs-{identity}")[0]["variant"] == BREAKOUT


# --- the data of the maps --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_up() -> dict:
    return study()


@pytest.fixture(scope="module")
def made_up_page(made_up, tmp_path_factory) -> Page:
    return render(tmp_path_factory.mktemp("page"), made_up)[1]


def test_maps_contain_the_given_data(made_up, made_up_page):
    for entry in made_up["sections"]:
        identity = f"section-{words.slug(entry['section'])}"
        geometry = made_up_page.json(f"geometry-{identity}")
        assert geometry["spots"] == entry["spots"]
        assert geometry["spot_um"] == entry["spot_um"]
        xy = np.column_stack([decoded(geometry[axis], "<f4") for axis in "xy"])
        np.testing.assert_allclose(xy, entry["spatial_px"] * 2.0, rtol=1e-6)
        order = sorted(entry["runs"], key=lambda run: ["deep", "linear", "memory"].index(run["variant"]))
        for found, run in zip(made_up_page.json(f"runs-{identity}"), order, strict=True):
            assert found["variant"] == run["variant"]
            assert np.array_equal(decoded(found["score"], "<f4"), run["scores"].astype(np.float32))
            assert np.array_equal(decoded(found["call"], "i1"), run["calls"])
            assert found["threshold"] == run["threshold"]["threshold"]
            assert found["branch"] == run["threshold"]["branch"]
            for name in ("sd", "probability"):
                if run[name] is None:
                    assert found[name] is None
                else:
                    assert np.array_equal(decoded(found[name], "<f4"), run[name].astype(np.float32))


def test_a_run_with_a_probability_has_it_on_its_maps(made_up, made_up_page):
    for entry in made_up["sections"]:
        identity = f"section-{words.slug(entry['section'])}"
        runs = {run["variant"]: run for run in made_up_page.json(f"runs-{identity}")}
        assert [name for name, run in runs.items() if run["probability"]] == [JUDGES]
        layers = [of["value"] for of in made_up_page.all("input", name=f"layer-{identity}")]
        assert layers[:3] == ["score", "probability", "call"]


def test_the_verdicts_on_a_section_and_their_evidence_are_on_the_page(made_up, made_up_page):
    said = {}
    for entry in made_up["sections"]:
        [run] = [run for run in entry["runs"] if run["verdict"]["verdict"]]
        assert run["variant"] == JUDGES
        said[entry["section"]] = run["verdict"]
    assert {name: one["verdict"] for name, one in said.items()} == {
        "st_one": FOUND, "visium_two": FOUND, "mine": NONE,
    }  # fmt: skip
    kinds = [of["class"] for of in made_up_page.all("div", role="note")]
    assert kinds == ["verdict found", "verdict found", "verdict none"]
    for one in said.values():
        assert len(one["evidence"]) >= 3
        for text in one["evidence"]:
            assert text in made_up_page.text
    assert made_up_page.text.count("Tumour found linear") == 2
    assert made_up_page.text.count("No tumour found linear") == 1
    outside = "Outside of what the model knows: it is visium, the model learned from st."
    assert made_up_page.text.count(outside) == 1
    # where no tumour was found nothing is called, and the other methods' calls stay
    table = rows_after(made_up_page, "mine")
    assert table[JUDGES][:2] == [NONE, "0 of 72 (0.0 %)"]
    assert table["memory"][0] == "–"
    assert not table["memory"][1].startswith("0 of")


def rows_after(page: Page, section: str) -> dict[str, list[str]]:
    """Method -> the rest of its row in the table of all methods on a section."""
    [place] = [n for n, (_, of) in enumerate(page.tags) if of.get("data-name") == f"{section} calls"]
    before = sum(tag == "tr" for tag, _ in page.tags[:place])
    rows = [row for row in page.rows if row]
    return {row[0].split(" ")[0]: row[1:] for row in rows[before + 1 : before + 4]}


def test_labels_and_regions_of_a_map(made_up, made_up_page):
    one, two, mine = made_up["sections"]
    for entry in (one, two):
        geometry = made_up_page.json(f"geometry-section-{words.slug(entry['section'])}")
        labels = [-1 if label != label else int(label) for label in entry["labels"]]
        assert decoded(geometry["labels"], "i1").tolist() == labels
        place = decoded(geometry["regions"]["place"], "<u2")
        assert [geometry["regions"]["words"][number] for number in place] == entry["regions"]
    assert -1 in decoded(made_up_page.json("geometry-section-visium-two")["labels"], "i1")
    geometry = made_up_page.json("geometry-section-mine")
    assert mine["labels"] is None
    assert geometry["labels"] is None
    assert geometry["regions"] is None


def test_picture_and_area_of_a_map(made_up, made_up_page):
    square, hexagonal = (made_up_page.json(f"geometry-section-{name}") for name in ("st-one", "visium-two"))
    assert square["cell_mm2"] == pytest.approx(0.04)  # 200 µm squares
    assert hexagonal["cell_mm2"] == pytest.approx(0.1**2 * np.sqrt(3) / 2)
    height, width = made_up["sections"][0]["thumbnail"].shape[:2]
    # 2 µm a full-resolution px and five of those a px of the picture
    assert (square["picture"]["width_um"], square["picture"]["height_um"]) == pytest.approx((width * 10, height * 10))
    assert square["picture"]["uri"].startswith("data:image/jpeg;base64,")


def test_facts_of_a_map_are_those_of_metrics(made_up, made_up_page):
    rows = made_up["metrics"]
    found = {run["variant"]: dict(run["facts"]) for run in made_up_page.json("runs-section-visium-two")}
    titles = {"deep": {"auc": "AUC", "f1_gmm": "F1, GMM threshold"}, "linear": {"ap": "AP", "ks": "KS"}}
    for variant, names in titles.items():
        for name, title in names.items():
            wanted = rows[(rows["section"] == "visium_two") & (rows["variant"] == variant) & (rows["metric"] == name)]
            text = f"{np.mean(wanted['value']):.3f}"
            if len(wanted) > 1:
                text += f" ± {np.std(wanted['value']):.3f}"
            assert found[variant][title] == text
    assert [run["facts"] for run in made_up_page.json("runs-section-mine")] == [[], [], []]


def test_histogram_counts_every_scored_spot_once(made_up, made_up_page):
    entry = made_up["sections"][1]
    for run in made_up_page.json("runs-section-visium-two"):
        bins = run["histogram"]
        scores = decoded(run["score"], "<f4")
        assert len(bins["edges"]) == 41
        assert bins["edges"][0] == pytest.approx(scores.min(), rel=1e-6)
        assert bins["edges"][-1] == pytest.approx(scores.max(), rel=1e-6)
        assert sum(bins["cancer"]) == np.sum(entry["labels"] == 1)
        assert sum(bins["other"]) == np.sum(entry["labels"] == 0)
        assert sum(bins["unknown"]) == np.isnan(entry["labels"]).sum()


@pytest.mark.usefixtures("no_drawing")
def test_spots_without_a_score(tmp_path):
    """They are not called, counted or in the histogram, and there is no NaN in the JSON."""
    scores = np.r_[np.full(5, np.nan), np.linspace(0, 1, 25)]
    calls = np.where(np.isnan(scores), np.nan, scores >= 0.5)
    run = {"variant": "linear", "scores": scores, "calls": calls, "threshold": {"threshold": 0.5, "branch": "midpoint"}}
    _, page = render(tmp_path, content(metric_frame(), [target("A_1", runs=[run])]))
    [found] = page.json("runs-section-a-1")
    assert np.array_equal(np.isnan(decoded(found["score"], "<f4")), np.isnan(scores))
    assert decoded(found["call"], "i1").tolist() == [-1] * 5 + [0] * 12 + [1] * 13
    assert sum(found["histogram"]["unknown"]) == 25
    assert page.row("A_1", "A", "linear uni")[3:5] == ["52.0 %", "13 of 25"]
    nothing = run | {"scores": np.full(30, np.nan), "calls": np.full(30, np.nan)}
    _, page = render(tmp_path, content(metric_frame(), [target("A_1", runs=[nothing])]))
    [found] = page.json("runs-section-a-1")
    assert sum(found["histogram"]["unknown"]) == 0
    assert found["limits"] == [0.0, 1.0]
    assert page.row("A_1", "A", "linear uni")[3:5] == ["–", "0 of 0"]


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize("threshold", [None, {"threshold": None, "branch": "constant"}])
def test_a_section_without_threshold(tmp_path, threshold):
    run = {"variant": "linear", "scores": np.full(30, 0.2), "calls": np.zeros(30), "threshold": threshold}
    _, page = render(tmp_path, content(metric_frame(), [target("A_1", runs=[run])]))
    [found] = page.json("runs-section-a-1")
    assert found["threshold"] is None
    edges = found["histogram"]["edges"]
    assert (edges[0], edges[-1]) == (pytest.approx(-0.3), pytest.approx(0.7))  # equal scores have a width too
    assert page.row("A_1", "A", "linear uni")[3:5] == ["0.0 %", "0 of 30"]


@pytest.mark.usefixtures("no_drawing")
def test_a_section_of_two_tasks_is_in_the_page_once(tmp_path, metrics):
    _, page = render(tmp_path, content(metrics, [target("A_1"), target("A_1", task="other"), target("B_1")]))
    data = [of["id"] for of, _ in page.scripts if "id" in of]
    assert [name for name in data if name.startswith("geometry")] == ["geometry-section-a-1", "geometry-section-b-1"]
    assert [of["data-geometry"] for of in page.all("div", class_="map")] == [
        "geometry-section-a-1",
        "geometry-section-a-1",
        "geometry-section-b-1",
    ]
    assert len([name for name in data if name.startswith("runs")]) == 3
    assert len([of for of in page.all("a") if of["href"] == "#section-a-1" and "class" not in of]) == 1  # at a glance


@pytest.mark.usefixtures("no_drawing")
def test_expression_only_section(tmp_path, metrics):
    _, page = render(tmp_path, content(metrics, [target("A_1", image=False, labels=LABELS)]))
    assert "no H&E" in page.text
    assert page.json("geometry-section-a-1")["picture"] is None
    assert not page.all("input", data_input="image")
    assert page.all("input", data_input="opacity")[0]["value"] == "100"
    _, page = render(tmp_path, content(metrics, [target("A_1", labels=LABELS)]))
    assert page.all("input", data_input="image")


def test_a_section_without_image_still_has_a_gallery_picture(tmp_path, metrics):
    _, page = render(tmp_path, content(metrics, [target("A_1", image=False)]))
    [picture] = page.all("img")
    assert picture["src"].startswith("data:image/png")
    assert picture["alt"] == "Section A_1: 12 of 30 spots called cancer by linear, drawn on the section."


@pytest.mark.usefixtures("no_drawing")
def test_layers_are_those_that_a_section_has(tmp_path, metrics):
    two, one = target("A_1", labels=LABELS), target("B_1")
    two["runs"][0]["sd"], two["runs"][1]["sd"] = np.full(30, 0.1), None
    _, page = render(tmp_path, content(metrics, [two, one]))
    assert [of["value"] for of in page.all("input", name="layer-section-a-1")] == ["score", "call", "label", "sd"]
    assert [of["value"] for of in page.all("input", name="layer-section-b-1")] == ["score", "call"]
    assert "when the training is repeated" in page.text
    runs = {run["variant"]: run for run in page.json("runs-section-a-1")}
    assert np.allclose(decoded(runs["linear"]["sd"], "<f4"), 0.1)
    assert runs["deep"]["sd"] is None
    assert runs["deep"]["sd_limits"] is None
    _, page = render(tmp_path, content(metrics, [one]))
    assert "when the training is repeated" not in page.text


@pytest.mark.usefixtures("no_drawing")
def test_what_the_methods_say_about_a_section(tmp_path, metrics):
    """Each verdict once, with those that give it; in the summary that of the method that is shown."""
    one, two = target("A_1", variants=("linear", "deep", "a")), target("B_1", variants=("linear",))
    found = Verdict(FOUND, ("The level is 2.0.",), ("it is visium",)).as_dict()
    one["runs"][0] |= {"verdict": found, "probability": np.full(30, 0.25)}
    one["runs"][1]["verdict"] = Verdict(OPEN, ("The level is 0.0.",)).as_dict()
    one["runs"][2] |= {"verdict": found, "probability": None}
    two["runs"][0]["verdict"] = Verdict().as_dict()
    _, page = render(tmp_path, content(metrics, [one, two]))
    assert [of["class"] for of in page.all("div", role="note")] == ["verdict found", "verdict open"]
    assert "Tumour found linear, a" in page.text
    assert "Outside of what the model knows: it is visium." in page.text
    assert "Cannot tell deep The level is 0.0." in page.text
    assert page.row("section", "verdict")
    assert page.row("A_1", FOUND)[2:4] == ["A", "linear uni"]
    assert page.row("B_1", "–")[2:4] == ["B", "linear uni"]
    assert "In A_1 – tumour found – linear calls 12 of 30 spots cancer" in page.text
    assert "tumour found; 40.0 % called by linear" in page.text
    assert [of["value"] for of in page.all("input", name="layer-section-a-1")] == ["score", "probability", "call"]
    assert [of["value"] for of in page.all("input", name="layer-section-b-1")] == ["score", "call"]
    runs = {run["variant"]: run["probability"] for run in page.json("runs-section-a-1")}
    assert np.allclose(decoded(runs["linear"], "<f4"), 0.25)
    assert (runs["deep"], runs["a"]) == (None, None)
    # one method that says nothing about the section
    _, page = render(tmp_path, content(metrics, [two]))
    assert not page.all("div", role="note")
    assert not [row for row in page.rows if "verdict" in row]


@pytest.mark.usefixtures("no_drawing")
def test_the_best_method_is_shown_first_and_controls_last(tmp_path, metrics):
    variants = ("oracle", "a", "deep", "linear")
    html, page = render(tmp_path, content(metrics, [target("A_1", variants=variants, labels=LABELS)]))
    shown = re.findall(r"<option[^>]*>(.*?)</option>", html)
    assert shown == [
        "linear · labelled source · mean AUC 0.890",
        "deep · normal reference · mean AUC 0.850",
        "a · ",
        "oracle · control · mean AUC 1.000",
    ]
    assert [run["variant"] for run in page.json("runs-section-a-1")] == ["linear", "deep", "a", "oracle"]


# --- summary and evaluation ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_drawing")
def test_numbers_on_the_page(tmp_path, metrics):
    sections = [target("A_1", labels=LABELS), target("B_1", labels=LABELS)]
    html, page = render(tmp_path, content(metrics, sections))
    assert page.row("deep normal reference", "0.850 ± 0.050")[2] == "0.500"
    assert page.row("linear labelled source", "0.890")[2] == "–"
    assert page.row("oracle control", "1.000")
    assert page.row("partial marker prior on 1 of 3 sections")[1] == "0.990"
    assert Page(tables_of(html)["loo uni"]).row("method")[1:] == [
        "AUC", "AP", "F1, true ratio", "F1, GMM threshold", "Balanced accuracy of the calls", "KS", "ECE",
        "Called where there is no tumour", "Called normal glands", "Verdict right", "seeds",
    ]  # fmt: skip
    assert page.row("chance")[1:] == ["0.500", "0.450", "0.450", "–", "0.500", "0.000", "–", "–", "–", "–", ""]
    # 12 of 30 spots; 200 µm squares: 12 x 0.04 mm²; 10 of 25 labelled spots
    assert page.row("A_1", "A", "linear uni")[3:] == ["40.0 %", "12 of 30", "0.48", "40.0 % to 40.0 %", "40.0 %"]
    # linear learned from labels, partial and deep saw none
    assert page.row("A_1", "A", "1,300", "0.200", "0.950")[5:] == ["0.990", "0.850 ± 0.050", "1.000"]
    assert page.row("train", "deep") == ["train", "deep", "2", "1 min 16 s", "45.5 s", "1,200"]
    assert page.row("ingest")[-1] == "–"
    assert page.row("loo", "uni", "A_1", "deep", "1")[5:] == ["0.8675", "crossing"]
    assert page.row("loo", "uni", "stands")[3] == "no normal reference"
    assert "In A_1 , linear calls 12 of 30 spots cancer (40.0 %, 0.48 mm²)." in page.text
    assert "2 sections of 2 patients (60 spots) scored by 2 methods. All sections are labelled." in page.text


def groups_of(html: str, name: str = "loo uni") -> list[list[str]]:
    """The methods of a table of results, body by body."""
    bodies = re.findall(r"<tbody.*?</tbody>", tables_of(html)[name], re.S)
    return [[row[0] for row in Page(body).rows if row] for body in bodies]


def marked(html: str, name: str = "loo uni") -> list[str]:
    return re.findall(r'<td class="n best">([^<]*)</td>', tables_of(html)[name])


@pytest.mark.usefixtures("no_drawing")
def test_a_training_that_did_not_lower_its_loss_is_marked_in_the_table_of_methods(tmp_path, metrics):
    text = "fit 4.16 to 4.158"
    metrics["unmoved"] = np.where((metrics["variant"] == "deep") & (metrics["seed"] == 2), text, "")
    _, page = render(tmp_path, content(metrics, []))
    (head,) = {cell for row in page.rows for cell in row[:1] if "did not lower" in cell}
    assert head == f"deep normal reference training did not lower its loss ({text}, 3 of 6 runs)"
    assert page.text.count("“training did not lower …”: the mean total loss") == 1


@pytest.mark.usefixtures("no_drawing")
def test_scores_that_follow_library_size_or_darkness_are_marked_with_the_figure(tmp_path, metrics):
    rhos = [metric_rows(v, 1, "rho_library_size", A_1=-0.9, A_2=-0.8, B_1=-0.85) for v in ("deep", "linear")]
    rhos.append(metric_rows("linear", 1, "rho_darkness", A_1=0.95, A_2=0.7))
    _, page = render(tmp_path, content(pd.concat([metrics, metric_frame(*rhos)]), [target("A_1", labels=LABELS)]))
    both = "linear labelled source follows library size, rho -0.85 follows darkness, rho 0.82"
    # in the table of methods, and in that of the section's map
    assert [row[0] for row in page.rows if row and "follows" in row[0]].count(both) == 2
    assert len([row for row in page.rows if row and row[0].startswith("deep normal reference follows library")]) == 2
    assert page.text.count("“follows …”: the rank correlation") == 1
    # a column that is no metric is not shown as one
    assert "rho_library_size" not in page.text.replace("follows", "")


@pytest.mark.usefixtures("no_drawing")
def test_methods_that_learned_from_labels_are_ranked_apart(tmp_path, metrics):
    more = metric_frame(metric_rows("late", 1, A_1=0.7, A_2=0.7, B_1=0.7), metric_rows("late", 1, "ap", A_1=0.9))
    regimes = {"linear": "labelled_source", "late": "labelled_source", "deep": "normal_reference"}
    regimes |= {"partial": "marker_prior", "oracle": "control"}
    methods = {name: {"regime": regime, "reference": ""} for name, regime in regimes.items()}
    html, page = render(tmp_path, content(pd.concat([metrics, more]), [], methods=methods))
    assert groups_of(html) == [
        ["learned from labels"],
        ["linear labelled source", "late labelled source"],
        ["saw no label"],
        ["partial marker prior on 1 of 3 sections", "deep normal reference"],
        ["oracle control", "chance"],
    ]
    # the best AUC and AP of each group; incomplete methods and controls are not ranked
    assert marked(html) == ["0.890", "0.900", "0.850 ± 0.050", "0.500"]
    assert "loo, uni, learned from labels: linear beats late by 0.190 mean AUC" in page.text
    assert "loo, uni, saw no label: deep reaches a mean AUC of 0.850 ± 0.050" not in page.text
    assert "loo, uni, saw no label: deep reaches a mean AUC of 0.850 (2 patients)." in page.text
    # bold in each group of the columns by section too: linear and partial on A_1, linear and deep on A_2
    assert marked(html, "loo uni AUC by section")[:4] == ["0.950", "0.990", "0.930", "0.650 ± 0.050"]


@pytest.mark.usefixtures("no_drawing")
def test_best_of_a_column_is_marked_among_methods_that_have_all_sections(tmp_path, metrics):
    methods = {name: {"regime": "marker_prior", "reference": ""} for name in ("linear", "deep", "partial")}
    methods["oracle"] = {"regime": "control", "reference": ""}
    html, page = render(tmp_path, content(metrics, [], methods=methods))
    assert marked(html) == ["0.890", "0.500"]  # AUC: linear, not partial nor the oracle; AP: deep alone has one
    assert (
        "linear beats deep by 0.040 mean AUC, less than the sd over seeds (0.890 against 0.850; better on 1 of 2"
        in page.text
    )


@pytest.mark.usefixtures("no_drawing")
def test_source_spots_as_normal_reference_are_declared(tmp_path, three_results):
    """Without healthy sections labels of source spots are used, and every table says so."""
    declared = three_results.assign(reference=np.where(three_results["variant"] == "deep", "source_negatives", ""))
    html, page = render(tmp_path, content(declared, [target("A_1")]))
    cells = {cell for row in page.rows for cell in row}
    assert "deep normal reference: source spots" in cells
    assert {"linear", "deep source spots"} <= cells
    assert "learns from the spots labelled 0 in the source sections" in page.text
    assert groups_of(html)[:2] == [
        ["learned from labels"],
        ["linear labelled source"],
    ]
    assert groups_of(html)[2:4] == [["knew normal spots by their labels"], ["deep normal reference: source spots"]]
    assert "source spots" not in render(tmp_path, content(three_results, [target("A_1")]))[1].text


@pytest.mark.usefixtures("no_drawing")
def test_what_is_taught_by_a_drawing_is_declared_and_stands_apart(tmp_path, three_results):
    declared = three_results.assign(reference=np.where(three_results["variant"] == "deep", "drawn", ""))
    html, page = render(tmp_path, content(declared, [target("A_1")]))
    groups = groups_of(html)
    assert groups[:2] == [["learned from labels"], ["linear labelled source"]]
    taught = groups.index(["taught by drawings in the target"])
    assert groups[taught + 1] == ["deep drawn in the target"]
    assert "not to be compared with those that are not" in page.text
    assert "Maps taught by drawings" not in page.text


@pytest.mark.usefixtures("no_drawing")
def test_a_drawing_says_how_good_its_map_is_and_that_map_is_shown_first(tmp_path, three_results):
    facts = {
        "spots": {"cancer": 6, "other": 21}, "regions": {"cancer": 1, "other": 3}, "blocks": 3, "auc": 0.9712,
        "balanced_accuracy": 0.905, "found": 1.0, "spared": 0.81, "caveat": "too good",
        "curve": [{"share": 0.05, "balanced_accuracy": 0.71}, {"share": 1.0, "balanced_accuracy": 0.905}],
    }  # fmt: skip
    run = {"task": "corrected", "fold": "A_1", "encoder": "uni", "variant": "strokes", "seed": 1}
    table = tabulate.table([run], [facts])
    hers = target("A_1") | {"task": "corrected"}
    sections = [target("A_1"), hers]
    _, page = render(tmp_path, content(three_results, sections) | {"within": table})
    row = next(row for row in page.rows if "6 cancer in 1 region, 21 other in 3 regions" in row)
    assert row[:2] == ["A_1", "strokes"]
    assert row[3:] == ["0.9712", "0.905", "1", "0.81", "0.71 at 5 % drawn", "too good"]
    assert pages._corrected(table) == {("corrected", "A_1")}
    (glance,) = pages._glance(sections, set(), {}, {"A_1": "x"}, {("corrected", "A_1")})
    assert glance["task"] == "corrected"
    (glance,) = pages._glance(sections, set(), {}, {"A_1": "x"})
    assert glance["task"] == target("A_1")["task"]


BENCHMARK = {
    "sections": pd.DataFrame(),
    "methods": pd.DataFrame(
        [
            ("loo", "uni", "linear", "auc", 0.7111, 0.9555, 1.5),
            ("loo", "uni", "linear", "ap", 0.1, 0.2, 9.0),
            ("loo", "uni", "deep", "auc", np.nan, np.nan, 2.0),
            ("other", "uni", "deep", "auc", 0.3, 0.4, 7.0),
        ],
        columns=["task", "encoder", "variant", "metric", "low", "high", "mean_rank"],
    ),
    "pairs": pd.DataFrame(
        [
            ("loo", "uni", "auc", "linear", "deep", 7, 0.0404, 6, 0.0156, 0.04691, 0.011, 0.091, "6 sections"),
            ("loo", "uni", "auc", "oracle", "deep", 7, 0.3, 7, 0.01, 0.01, 0.2, 0.4, ""),
            ("loo", "uni", "ap", "linear", "deep", 7, 0.5, 7, 0.01, 0.01, 0.2, 0.4, ""),
            ("loo", "uni", "auc", "linear", "partial", 1, 0.1, 1, np.nan, np.nan, np.nan, np.nan, "too few"),
        ],
        columns=[
            "task", "encoder", "metric", "better", "other", "sections", "mean_difference", "sections_better", "p",
            "p_holm", "low", "high", "note",
        ],
    ),
}  # fmt: skip


@pytest.mark.usefixtures("no_drawing")
def test_intervals_ranks_and_pairs_are_shown_with_a_benchmark(tmp_path, three_results):
    html, page = render(tmp_path, content(three_results, [], benchmark=BENCHMARK))
    tables = tables_of(html)
    assert Page(tables["loo uni"]).row("method")[1:5] == ["AUC", "95 % interval", "mean rank", "AP"]
    assert page.row("linear labelled source", "0.890")[2:4] == ["0.711 to 0.956", "1.5"]
    assert page.row("deep normal reference", "0.850 ± 0.050")[2:4] == ["–", "2"]
    assert page.row("oracle control", "1.000")[2:4] == ["–", "–"]
    assert page.row("chance", "0.500", "", "", "0.450")
    pairs = [row for row in Page(tables["pairs loo uni"]).rows if row]
    assert pairs == [
        ["better", "other", "difference", "95 % interval", "better on", "p", "p, Holm", "note"],
        ["linear", "deep", "0.040", "0.011 to 0.091", "6 of 7 sections", "0.0156", "0.04691", "6 sections"],
        ["linear", "partial", "0.100", "–", "1 of 1 sections", "–", "–", "too few"],
    ]
    assert "pairs other uni" not in tables
    widths = {sum(int(of.get("colspan", 1)) for tag, of in Page(row).tags if tag in ("td", "th"))
              for row in re.findall(r"<tr.*?</tr>", tables["loo uni"], re.S)}  # fmt: skip
    assert widths == {14}


@pytest.mark.usefixtures("no_drawing")
def test_without_the_benchmark_there_is_no_interval(tmp_path, metrics):
    html, page = render(tmp_path, content(metrics, []))
    assert "95 % interval" not in page.text
    assert "mean rank" not in page.text
    assert "Pairwise tests" not in page.text
    widths = {sum(int(of.get("colspan", 1)) for tag, of in Page(row).tags if tag in ("td", "th"))
              for row in re.findall(r"<tr.*?</tr>", tables_of(html)["loo uni"], re.S)}  # fmt: skip
    assert widths == {12}


FIGURE = {"title": "Severity", "task": "loo", "encoder": "uni", "caption": "Mean score by region.", "picture": PNG}
FIGURE |= {"reason": ""}
TABLE = pd.DataFrame({"paper": ["SpaCRD"], "table": ["T_1"], "ours_sd": [0.91234], "uncertain": [True]})
RUNS = pd.DataFrame(
    {
        "task": "loo", "encoder": "uni", "variant": "deep", "seed": [1, 2], "params": 1000, "kept_numbers": 1000,
        "pretrain_s": [2.0, np.nan], "train_s": [10.0, 20.0], "infer_s": [1.0, 2.0], "train_rss_mb": [900.0, 700.0],
        "infer_rss_mb": 500.0,
    }
)  # fmt: skip


@pytest.mark.usefixtures("no_drawing")
def test_published_efficiency_and_figures_where_given(tmp_path, metrics):
    missing = FIGURE | {"title": "Edges", "caption": "", "picture": None, "reason": "no section has edge spots"}
    html, page = render(tmp_path, content(metrics, [], published=TABLE, efficiency=RUNS, figures=[FIGURE, missing]))
    header, row = (row for row in Page(tables_of(html)["published"]).rows if row)
    assert header == ["paper", "table", "ours sd", "uncertain"]
    assert row == ["SpaCRD", "T_1", "0.9123", "True"]
    header, row = (row for row in Page(tables_of(html)["efficiency"]).rows if row)
    found = dict(zip(header, row, strict=True))
    # means over both runs
    assert found == {
        "task": "loo", "encoder": "uni", "variant": "deep", "parameters": "1,000", "kept numbers": "1,000",
        "pretraining, s": "2", "training, s": "15", "scoring, s": "1.5", "training, MB": "800", "scoring, MB": "500",
    }  # fmt: skip
    assert [of["src"] for of in page.all("img")] == ["data:image/png;base64,iVBORw0KGgo="]
    assert "Mean score by region." in page.text
    assert "no section has edge spots" in page.text
    assert {"href": "#figures"} in page.all("a")


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize("nothing", [{}, {"published": TABLE[:0], "efficiency": RUNS[:0], "figures": []}])
def test_published_efficiency_and_figures_where_there_are_none(tmp_path, metrics, nothing):
    html, page = render(tmp_path, content(metrics, [], **nothing))
    assert not set(tables_of(html)) & {"published", "efficiency"}
    assert not {of["href"] for of in page.all("a")} & {"#published", "#figures"}
    assert not page.all("img")


CURVES = pd.DataFrame(
    {"task": "loo", "encoder": "uni", "variant": np.repeat(["oracle", "deep", "linear"], 10)}
    | {"bin": [*range(1, 11)] * 3, "mean_score": np.nan, "share": np.nan, "spots": 0}
)
CURVES.loc[[13, 29], ["mean_score", "share", "spots"]] = [[0.375, 0.25, 1300], [0.98, 0.6, 40]]


@pytest.mark.usefixtures("no_drawing")
def test_calibration_error_is_a_column_and_the_lowest_is_best(tmp_path, metrics):
    metrics = pd.concat(
        [
            metrics,
            metric_frame(
                metric_rows("deep", 1, "ece", A_1=0.2, A_2=0.1, B_1=0.05),  # 0.15 and 0.05: 0.10
                metric_rows("deep", 2, "ece", A_1=0.2, A_2=0.2, B_1=0.04),  # 0.20 and 0.04: 0.12
                metric_rows("linear", 1, "ece", A_1=0.1, A_2=0.4, B_1=0.25),
                metric_rows("oracle", 1, "ece", A_1=0.0, A_2=0.0, B_1=0.0),
                metric_rows("deep", 1, "brier", A_1=0.7),
            ),
            metric_frame(metric_rows("partial", 1, "ece", A_1=np.nan, A_2=np.nan, B_1=np.nan)).assign(
                note="not a probability"
            ),
        ]
    )
    methods = {name: {"regime": "labelled_source", "reference": ""} for name in ("deep", "linear")}
    methods |= {
        "partial": {"regime": "marker_prior", "reference": ""},
        "oracle": {"regime": "control", "reference": ""},
    }
    html, page = render(tmp_path, content(metrics, [], methods=methods))
    assert page.row("method")[7] == "ECE"
    assert page.row("deep labelled source")[7] == "0.110 ± 0.010"
    assert page.row("linear labelled source")[7] == "0.250"
    assert page.row("partial marker prior on 1 of 3 sections")[7] == "–"
    assert page.row("chance")[7] == "–"
    # AUC and AP over sections, ECE the lowest but for the oracle; partial lacks sections
    assert marked(html) == ["0.890", "0.500", "0.110 ± 0.010"]
    assert marked(html, "loo uni ECE by section") == ["0.100", "0.150 ± 0.050", "0.045 ± 0.005"]
    assert "Not computed: ECE of partial: not a probability." in page.text
    assert "expected calibration error, is the mean distance" in page.text


@pytest.mark.usefixtures("no_drawing")
def test_reliability_curves_are_shown_with_their_task_and_encoder(tmp_path, three_results, monkeypatch):
    drawn = []
    monkeypatch.setattr(pages.plots, "reliability_panels", lambda curves: drawn.append(curves) or PNG)
    _, page = render(tmp_path, content(three_results, [], reliability=CURVES))
    [curves] = drawn  # of three results one has curves
    assert [name for name, *_ in curves] == ["linear", "deep", "oracle"]  # controls last
    _, mean_score, share, spots = curves[1]
    assert (mean_score[3], share[3], spots[3]) == (0.375, 0.25, 1300)
    assert page.row("deep", "0.3 to 0.4") == ["deep", "0.3 to 0.4", "0.375", "0.250", "1,300"]
    assert page.row("linear", "0.9 to 1")[2:] == ["0.980", "0.600", "40"]
    assert page.text.count("No calibration was fitted on target sections") == 1
    assert sum("Reliability curves of linear, deep, oracle" in of["alt"] for of in page.all("img")) == 1


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize("changes", [{}, {"reliability": CURVES[:0]}, {"reliability": CURVES.assign(task="other")}])
def test_without_probabilities_there_is_no_reliability_curve(tmp_path, metrics, changes):
    _, page = render(tmp_path, content(metrics, [], **changes))
    assert "calibration was fitted" not in page.text
    assert "expected calibration error, is" not in page.text


# --- small studies ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_drawing")
def test_unlabelled_study(tmp_path):
    html, page = render(tmp_path, content(metric_frame(), [target("mine")]))
    assert "No section is labelled" in page.text
    assert "not labelled" in page.text
    assert "Evaluation" not in page.text
    assert page.row("mine", "mine")[2] == "linear uni"
    assert "loo uni" not in tables_of(html)
    assert page.json("geometry-section-mine")["labels"] is None
    assert [of["value"] for of in page.all("input", data_input="layer")] == ["score", "call"]


@pytest.mark.usefixtures("no_drawing")
def test_labels_that_are_all_unknown_are_none(tmp_path):
    _, page = render(tmp_path, content(metric_frame(), [target("mine", labels=np.full(30, np.nan))]))
    assert "No section is labelled" in page.text
    assert page.json("geometry-section-mine")["labels"] is None


@pytest.mark.usefixtures("no_drawing")
def test_labelled_sections_of_one_class_are_explained(tmp_path):
    metrics = metric_frame(metric_rows("linear", 1, A_1=np.nan)).assign(note="one class only (all spots cancer)")
    _, page = render(tmp_path, content(metrics, [target("A_1", labels=np.ones(30))]))
    assert "not evaluated: no section has both" in page.text
    assert "A_1, AUC: one class only (all spots cancer)" in page.text


@pytest.mark.usefixtures("no_drawing")
def test_one_method_one_seed_one_section(tmp_path):
    metrics = metric_frame(
        metric_rows("linear", 1, A_1=0.8),
        metric_rows("linear", 1, "prevalence", A_1=0.4),
        metric_rows("linear", 1, "n_spots", A_1=25),
    )
    html, page = render(tmp_path, content(metrics, [target("A_1", variants=("linear",), labels=LABELS)], seeds=[1]))
    assert "1 section of 1 patient (30 spots) scored by 1 method. The section is labelled." in page.text
    assert "learned from labels: linear reaches a mean AUC of 0.800 (1 patient)." in page.text
    assert groups_of(html) == [["learned from labels"], ["linear labelled source"], ["chance"]]
    assert page.row("linear labelled source", "0.800")[-1] == "1"
    assert page.row("A_1", "A", "linear uni")[6] == "–"  # no other method to differ from
    assert "Mean over 1 target section of 1 patient" in page.text
    assert len(page.all("option")) == 1


@pytest.mark.usefixtures("no_drawing")
def test_no_target_at_all(tmp_path):
    _, page = render(tmp_path, content(metric_frame(), []))
    assert "No target section was scored" in page.text


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.usefixtures("no_drawing")
def test_simulated_data_are_flagged(tmp_path, metrics, simulated):
    html, page = render(tmp_path, content(metrics, [target("A_1", labels=LABELS)], simulated=simulated))
    assert ("Simulated data." in page.text) is simulated
    assert ("<title>SIMULATED" in html) is simulated


@pytest.mark.usefixtures("no_drawing")
def test_warnings_of_the_check_of_a_section_are_shown(tmp_path, metrics):
    warned = [target("A_1", concerns=["problem: x and y look swapped"]), target("B_1")]
    _, page = render(tmp_path, content(metrics, warned))
    assert page.text.count("problem: x and y look swapped") == 1


@pytest.mark.usefixtures("no_drawing")
def test_the_same_study_gives_the_same_page(tmp_path, metrics):
    what = content(metrics, [target("A_1", labels=LABELS)])
    assert render(tmp_path, what)[0] == render(tmp_path, what)[0]


def test_the_plots_are_the_same_but_for_the_count_of_models():
    """Bokeh numbers its models from the start of the process."""
    one, other = (re.sub(r'"p\d+"', '"p"', json.dumps(pages.maps.plot_items())) for _ in range(2))
    assert one == other


@pytest.mark.usefixtures("no_drawing")
def test_spots_lie_on_the_picture_whatever_its_scale(tmp_path, metrics):
    """40 px of the picture are 800 px of the slide and 1,600 µm."""
    entry = target("A_1", thumbnail=np.zeros((50, 40, 3), np.uint8), thumbnail_scale=0.05)
    _, page = render(tmp_path, content(metrics, [entry]))
    picture = page.json("geometry-section-a-1")["picture"]
    assert (picture["width_um"], picture["height_um"]) == (1600.0, 2000.0)


# --- training --------------------------------------------------------------------------------------------------------


def kept_losses(variant="deep", fold="A", seed=1, stage="align", term="loss", values=(2.0, 1.0)) -> pd.DataFrame:
    """The losses of one run, stage and term, as results.loss_table gives them."""
    rows = [("loo", fold, "uni", variant, seed, stage, i, term, value) for i, value in enumerate(values, 1)]
    return pd.DataFrame(rows, columns=["task", "fold", "encoder", "variant", "seed", "stage", "epoch", "term", "value"])


def test_last_losses_are_means_over_runs():
    found = training.last_losses(
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


@pytest.mark.usefixtures("no_drawing")
def test_training_has_a_picture_and_its_last_losses(tmp_path, metrics, monkeypatch):
    drawn = []
    monkeypatch.setattr(pages.plots, "loss_curves", lambda rows: drawn.append(rows) or PNG)
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
    assert "Losses are computed on the training sections only" in page.text
    assert "still falling at the right edge needs more epochs" in page.text
    assert {"href": "#training"} in [attributes for tag, attributes in page.tags if tag == "a"]
    assert not [True for _, attributes in page.tags if attributes.get("class") == "banner"]


@pytest.mark.parametrize("losses", [{}, {"losses": kept_losses(values=())}])
@pytest.mark.usefixtures("no_drawing")
def test_without_losses_there_is_no_training_on_the_page(tmp_path, metrics, losses):
    _, page = render(tmp_path, content(metrics, [], **losses))
    assert "Training" not in page.text


@pytest.mark.usefixtures("no_drawing")
def test_failed_trainings_are_reported_and_open(tmp_path, metrics, monkeypatch):
    monkeypatch.setattr(pages.plots, "loss_curves", lambda rows: PNG)
    kept = [kept_losses(name) for name in "abc"]
    kept += [kept_losses("bad", seed=seed, values=(2.0, np.nan)) for seed in (1, 2)]
    kept += [kept_losses("bad", seed=3), kept_losses("bad", seed=1, stage="fuse", values=(1.0, 1.5))]
    html, page = render(tmp_path, content(metrics, [], losses=pd.concat(kept)))
    warnings = [text for text in page.texts if "the loss is" in text]
    assert warnings == [
        "align: the loss is not finite at the end (loss) in 2 of 3 runs (fold A seed 1, fold A seed 2): "
        "lower the learning rate.",
        "fuse: the loss is higher at the end than at the start in 1 of 3 runs (fold A seed 1): "
        "lower the learning rate.",
    ]
    assert page.row("align", "loss", "3")[3:] == ["2", "2", "1 (not finite: 2 runs)"]
    training = html.split('id="training"')[1]
    openings = re.findall(r'<details class="section card"( open)?>\s*<summary><h3>(\w+)', training)
    assert openings == [(" open", "a"), (" open", "b"), ("", "c"), (" open", "bad")]


@pytest.mark.usefixtures("no_drawing")
def test_names_in_losses_are_escaped(tmp_path, metrics):
    kept = kept_losses(ODD, stage=ODD, values=(1.0, 2.0)).assign(task=ODD, encoder=ODD, fold=ODD)
    _, page = render(tmp_path, content(metrics, [], losses=kept))
    assert len(page.scripts) == 4  # three that run, and the plots
    assert f"{ODD}: the loss is higher at the end" in page.text
