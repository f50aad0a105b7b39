"""The report in a browser: what a person sees, moves and downloads, with the network off.

The browser is the machine's own Chromium, driven by Playwright; without one these tests are skipped.
"""

import io
import re
import shutil
from contextlib import contextmanager
from functools import cache
from itertools import product

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageColor
from playwright.sync_api import Error, expect, sync_playwright
from sklearn.metrics import f1_score, precision_score, recall_score

import reports
from ctrflow import plots, report
from ctrflow.report import maps
from ctrflow.sections.labels import read_labels, read_words
from runs import ROOT
from spot_arrays import section as section_of

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ENTRIES = {name: f"#section-{name.replace('_', '-')}" for name in reports.SECTIONS}
CELL_MM2 = {"st_one": 0.2**2, "visium_two": 0.1**2 * np.sqrt(3) / 2, "mine": 0.2**2}


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser: install one of {', '.join(BROWSERS)} to see the report tested in it")
    with sync_playwright() as playwright:
        try:
            found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        except Error as error:
            pytest.skip(f"{program} does not start: {error}")
        yield found
        found.close()


@pytest.fixture(scope="module")
def study() -> dict:
    return reports.study()


@pytest.fixture(scope="module")
def address(study, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.write_report(study, path)
    return path.as_uri()


@pytest.fixture
def opened(browser, address):
    """Open the report in a context of its own: no network, and no error while it is open."""

    @contextmanager
    def opening(where: str = "", **options):
        usual = {"viewport": {"width": 1300, "height": 1000}, "reduced_motion": "reduce"}
        context = browser.new_context(**usual | options)
        context.set_default_timeout(10_000)
        context.set_offline(True)
        asked, wrong = [], []

        def answer(route):
            if route.request.url.startswith("file://"):
                return route.continue_()
            asked.append(route.request.url)
            return route.abort()

        context.route("**/*", answer)
        page = context.new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url[:80]}"))
        page.goto(address + where)
        if options.get("java_script_enabled", True):
            page.wait_for_selector(f"{ENTRIES['st_one']} .map[data-ready]")
            settle(page)
        yield page
        context.close()
        assert asked == []
        assert wrong == []

    return opening


@pytest.fixture
def page(opened):
    with opened() as found:
        yield found


# --- reading the page ------------------------------------------------------------------------------------------------


def settle(page) -> None:
    """Wait until Bokeh has drawn."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(() => requestAnimationFrame(done), 60)))")


def unfold(page, section: str) -> None:
    page.locator(f"{ENTRIES[section]} > summary").click()
    page.wait_for_selector(f"{ENTRIES[section]} .map[data-ready]")
    settle(page)


def part(page, name: str, section: str = "st_one"):
    return page.locator(f'{ENTRIES[section]} [data-part="{name}"]')


def control(page, name: str, section: str = "st_one"):
    return page.locator(f'{ENTRIES[section]} [data-input="{name}"]')


def show(page, layer: str, section: str = "st_one") -> None:
    page.locator(f'{ENTRIES[section]} [data-input="layer"][value="{layer}"]').check()
    settle(page)


def choose(page, variant: str, section: str = "st_one") -> None:
    text = page.locator(f'{ENTRIES[section]} [data-input="method"] option', has_text=variant).text_content()
    control(page, "method", section).select_option(label=text)
    settle(page)


def ranges(page, number: int = 0) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of the map that was opened as the `number`th, µm."""
    return tuple(
        page.evaluate(
            """number => {
                const figures = Bokeh.documents.map(one => one.roots()[0]).filter(one => one.name === "map");
                const { x_range, y_range } = figures[number];
                return [x_range.start, x_range.end, y_range.end, y_range.start];
            }""",
            number,
        )
    )


def places(page, entry, section: str = "st_one", number: int = 0) -> np.ndarray:
    """Where the spots are in the picture of a plot, px from the corner of its border."""
    left, right, top, bottom = ranges(page, number)
    box = part(page, "plot", section).bounding_box()
    size = box["width"] - 2, box["height"] - 2
    x, y = (entry["spatial_px"] * entry["um_per_px"]).T
    return np.column_stack([1 + (x - left) / (right - left) * size[0], 1 + (y - top) / (bottom - top) * size[1]])


def pixels(page, section: str = "st_one") -> np.ndarray:
    """The plot as it is on the screen, without the tooltip of a pointer."""
    picture = part(page, "plot", section).screenshot()
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


def at(picture, spots) -> np.ndarray:
    """The colours in the middle of spots: medians of 3 x 3 px."""
    columns, rows = spots.round().astype(int).T
    around = [picture[rows + down, columns + right] for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return np.median(around, axis=0)


def share_near(picture, colour, most: int = 14) -> float:
    """The share of pixels within `most` of a colour in each channel."""
    return float((np.abs(picture - np.array(colour)).max(axis=-1) <= most).mean())


def with_picture(page, section: str = "st_one") -> np.ndarray:
    """The plot once its H&E is loaded."""
    for _ in range(50):
        found = pixels(page, section)
        if share_near(found, reports.TISSUE) > 0.1:
            return found
        page.wait_for_timeout(100)
    raise AssertionError("the H&E does not appear")


def colour(text: str) -> np.ndarray:
    return np.array(ImageColor.getrgb(text))


def entry_of(study, section: str) -> dict:
    return next(entry for entry in study["sections"] if entry["section"] == section)


def run_of(entry, variant: str) -> dict:
    return next(run for run in entry["runs"] if run["variant"] == variant)


def numbers(page, section: str = "st_one") -> dict[str, float]:
    """The line of numbers below a map; NaN where it has a dash."""
    text = part(page, "numbers", section).text_content()
    called, scored, share, area = re.match(
        r"([\d,]+) of ([\d,]+) spots called cancer \(([\d.]+) %\), ([\d.]+) mm²", text
    ).groups()
    found = {"called": int(called), "scored": int(scored), "share": float(share), "area": float(area)}
    rest = re.findall(r"(F1|precision|recall) ([\d.]+|–)", text)
    return found | {name: float("nan") if value == "–" else float(value) for name, value in rest}


def expected(entry, calls) -> dict[str, float]:
    """The same, by scikit-learn."""
    called, area = int(np.sum(calls)), CELL_MM2[entry["section"]]
    found = {"called": called, "scored": len(calls), "share": 100 * called / len(calls), "area": called * area}
    if entry["labels"] is None:
        return found
    known = ~np.isnan(entry["labels"])
    truth, calls = entry["labels"][known].astype(int), np.asarray(calls)[known].astype(int)
    return found | {
        "F1": f1_score(truth, calls, zero_division=0),
        "precision": precision_score(truth, calls, zero_division=np.nan),
        "recall": recall_score(truth, calls),
    }


def same_numbers(shown, wanted) -> None:
    assert shown.keys() == wanted.keys()
    assert (shown["called"], shown["scored"]) == (wanted["called"], wanted["scored"])
    for name, by in {"share": 0.051, "area": 0.0051, "F1": 5.1e-4, "precision": 5.1e-4, "recall": 5.1e-4}.items():
        if name in wanted:
            assert shown[name] == pytest.approx(wanted[name], abs=by, nan_ok=True), name


def download(page, button) -> bytes:
    with page.expect_download() as waiting:
        button.click()
    return waiting.value.path().read_bytes()


def read_csv(content: bytes, **options) -> pd.DataFrame:
    assert content.startswith(b"\xef\xbb\xbf")  # Excel then reads µ and é as they are
    return pd.read_csv(io.BytesIO(content), keep_default_na=False, **options)


@cache
def palette() -> np.ndarray:
    return np.array([colour(one) for one in maps.palettes()["score"]])


# --- the map ---------------------------------------------------------------------------------------------------------


def test_the_first_map_shows_spots_on_the_section(page, study, tmp_path):
    picture = with_picture(page)
    part(page, "plot").screenshot(path=tmp_path / "map.png")
    assert share_near(picture, reports.TISSUE) > 0.25
    entry = entry_of(study, "st_one")
    # three quarters of the score's colour on a quarter of the tissue's: the best method's scores
    wanted = 0.75 * palette()[np.floor(256 * run_of(entry, "deep")["scores"]).clip(0, 255).astype(int)]
    wanted = wanted + 0.25 * np.array(reports.TISSUE)
    found = at(picture, places(page, entry))
    assert np.abs(found - wanted).max() < 16
    assert np.ptp(found, axis=0).max() > 60


def test_a_hexagonal_section_is_drawn_to_scale(page, study):
    unfold(page, "visium_two")
    entry = entry_of(study, "visium_two")
    left, right, top, bottom = ranges(page, 1)
    box = part(page, "plot", "visium_two").bounding_box()
    assert (right - left) / (box["width"] - 2) == pytest.approx((bottom - top) / (box["height"] - 2), rel=2e-3)
    show(page, "label", "visium_two")
    control(page, "opacity", "visium_two").fill("100")
    settle(page)
    with_picture(page, "visium_two")
    found = at(pixels(page, "visium_two"), places(page, entry, "visium_two", 1))
    cancer = np.abs(found - colour(plots.CANCER)).max(axis=1) < 10
    assert np.array_equal(cancer, entry["labels"] == 1)


def test_the_method_changes_numbers_and_picture(page, study):
    entry, before = entry_of(study, "st_one"), with_picture(page)
    facts = {part(page, "facts").text_content()}
    same_numbers(numbers(page), expected(entry, run_of(entry, "deep")["calls"]))
    for variant in ("linear", "memory"):
        choose(page, variant)
        same_numbers(numbers(page), expected(entry, run_of(entry, variant)["calls"]))
        facts.add(part(page, "facts").text_content())
        after = pixels(page)
        assert (np.abs(after - before).max(axis=-1) > 20).mean() > 0.01
        before = after
    assert len(facts) == 3


def test_numbers_agree_with_metrics(page, study):
    """The study's own calls and the facts below them, against metrics.tsv."""
    rows = study["metrics"]
    for section, variant in product(reports.SECTIONS, reports.METHODS):
        entry = entry_of(study, section)
        if not part(page, "plot", section).is_visible():
            unfold(page, section)
        choose(page, variant, section)
        found = numbers(page, section)
        same_numbers(found, expected(entry, run_of(entry, variant)["calls"]))
        facts = part(page, "facts", section).text_content()
        if section not in reports.LABELLED:
            assert facts == ""
            continue
        of = rows[(rows["section"] == section) & (rows["variant"] == variant)]
        for name, printed in (("auc", "AUC"), ("ap", "AP"), ("f1_gmm", "F1, GMM threshold"), ("ks", "KS")):
            values = of[of["metric"] == name]["value"]
            text = f"{printed} {values.mean():.3f}" + (f" ± {np.std(values):.3f}" if len(values) > 1 else "")
            assert f" · {text} " in f" · {facts} ", (facts, text)
        if of["seed"].nunique() == 1:
            [gmm] = of[of["metric"] == "f1_gmm"]["value"]
            assert found["F1"] == pytest.approx(gmm, abs=5.1e-4)


def test_the_threshold_changes_the_calls(page, study):
    """Against scikit-learn: within, below all and above all scores, and at a score itself."""
    for section, variant in (("st_one", "linear"), ("visium_two", "memory"), ("mine", "deep")):
        entry = entry_of(study, section)
        if section != "st_one":
            unfold(page, section)
        choose(page, variant, section)
        run = run_of(entry, variant)
        scores = run["scores"]
        for threshold in (0.3, 0.55, 0.7, scores[7], scores.min() - 0.2, scores.max(), scores.max() + 0.2):
            control(page, "threshold-number", section).fill(repr(float(threshold)))
            same_numbers(numbers(page, section), expected(entry, scores >= threshold))
            assert part(page, "origin", section).text_content() == "your threshold"
        assert "cancer" not in part(page, "legend", section).text_content()  # none is called above the highest score
        control(page, "reset", section).click()
        same_numbers(numbers(page, section), expected(entry, run["calls"]))
        assert part(page, "origin", section).text_content().startswith("label-free threshold")
        assert control(page, "reset", section).is_disabled()
        shown = float(control(page, "threshold-number", section).input_value())
        assert shown == pytest.approx(run["threshold"]["threshold"], rel=1e-5)


def test_the_numbers_leave_out_what_was_drawn(page, study, tmp_path):
    """Two tasks score a section and share its geometry; in the second some spots have taught the map."""
    entry = entry_of(study, "st_one")
    judged = np.where(np.arange(len(entry["labels"])) % 3 == 0, np.nan, entry["labels"])
    taught = entry | {"judged": judged}
    report.write_report(study | {"sections": [entry, taught]}, tmp_path / "report.html")
    page.goto((tmp_path / "report.html").as_uri())
    ENTRIES["taught"] = f"{ENTRIES['st_one']}-2"
    try:
        page.wait_for_selector(f"{ENTRIES['st_one']} .map[data-ready]")
        unfold(page, "taught")
        for section, labels in (("st_one", entry["labels"]), ("taught", judged)):
            choose(page, "linear", section)
            same_numbers(numbers(page, section), expected(entry | {"labels": labels}, run_of(entry, "linear")["calls"]))
    finally:
        del ENTRIES["taught"]
    assert not np.array_equal(judged, entry["labels"], equal_nan=True)


def test_the_slider_changes_the_calls_and_what_is_drawn(page, study):
    entry = entry_of(study, "st_one")
    slider = control(page, "threshold")
    scores = run_of(entry, "deep")["scores"]
    assert float(slider.get_attribute("min")) == pytest.approx(scores.min(), rel=1e-6)
    assert float(slider.get_attribute("max")) == pytest.approx(scores.max(), rel=1e-6)
    slider.focus()
    slider.evaluate("slider => { slider.value = 0.62; slider.dispatchEvent(new Event('input', { bubbles: true })); }")
    same_numbers(numbers(page), expected(entry, scores >= float(slider.input_value())))
    before = numbers(page)["called"]
    assert page.locator(f'{ENTRIES["st_one"]} [data-input="layer"]:checked').get_attribute("value") == "call"
    slider.press("End")
    assert numbers(page)["called"] < before
    slider.press("Home")
    assert numbers(page)["called"] == 120
    slider.evaluate("slider => { slider.value = 0.62; slider.dispatchEvent(new Event('input', { bubbles: true })); }")
    control(page, "opacity").fill("100")
    settle(page)
    with_picture(page)
    cancer = np.abs(at(pixels(page), places(page, entry)) - colour(plots.CANCER)).max(axis=1) < 10
    assert np.array_equal(cancer, scores >= float(slider.input_value()))


def test_layers(page, study):
    """Each shows its own values; one that a method does not have cannot be chosen."""
    entry = entry_of(study, "st_one")
    control(page, "opacity").fill("100")
    control(page, "image").uncheck()
    run, spots = run_of(entry, "deep"), places(page, entry)
    for layer, values in (("call", run["calls"]), ("label", entry["labels"])):
        show(page, layer)
        cancer = np.abs(at(pixels(page), spots) - colour(plots.CANCER)).max(axis=1) < 10
        assert np.array_equal(cancer, values == 1)
        legend = part(page, "legend").text_content()
        assert f"cancer {int(np.sum(values == 1))}" in legend
        assert f"other {int(np.sum(values == 0))}" in legend
    show(page, "sd")
    sd = run["sd"]
    share = np.clip(np.floor(256 * sd / plots.sd_limits(sd)[1]), 0, 255).astype(int)
    wanted = np.array([colour(one) for one in maps.palettes()["sd"]])[share]
    assert np.abs(at(pixels(page), spots) - wanted).max() < 10
    assert "seeds disagree" in part(page, "legend").text_content()
    choose(page, "linear")
    uncertain = page.locator(f'{ENTRIES["st_one"]} [data-input="layer"][value="sd"]')
    assert uncertain.is_disabled()
    assert not uncertain.is_checked()
    assert "more cancer-like" in part(page, "legend").text_content()
    unfold(page, "mine")
    assert page.locator(f'{ENTRIES["mine"]} [data-input="layer"][value="label"]').count() == 0


def test_opacity_and_the_picture_below(page):
    with_picture(page)
    control(page, "opacity").fill("0")
    settle(page)
    none = pixels(page)
    assert share_near(none, reports.TISSUE) > 0.5
    control(page, "image").uncheck()
    settle(page)
    assert share_near(pixels(page), (255, 255, 255)) > 0.9
    control(page, "opacity").fill("100")
    settle(page)
    alone = pixels(page)
    assert share_near(alone, reports.TISSUE) < 0.02
    assert share_near(alone, (255, 255, 255)) < 0.9


def test_pointing_at_a_spot_tells_it(page, study):
    """Its id as it is written, even where it looks like markup."""
    entry = entry_of(study, "st_one")
    run = run_of(entry, "deep")
    plot = part(page, "plot")
    plot.scroll_into_view_if_needed()
    for spot in (0, 45, 119):
        box, (x, y) = plot.bounding_box(), places(page, entry)[spot]
        page.mouse.move(box["x"] + x - 3, box["y"] + y)
        page.mouse.move(box["x"] + x, box["y"] + y, steps=3)
        tooltip = page.get_by_text(entry["spots"][spot], exact=True)
        tooltip.wait_for()
        said = " ".join(page.evaluate(BOKEH_WORDS))
        assert f"{run['scores'][spot]:.4f}" in said
        assert f"{run['sd'][spot]:.4f}" in said
        assert ("invasive, cancer" if entry["labels"][spot] == 1 else 'so-called "fat"') in said
    assert page.title() != "planted"
    assert page.locator("img[onerror]").count() == 0


# what Bokeh says stands in shadow trees
BOKEH_WORDS = """() => {
    const found = [];
    const walk = (node, inside) => {
        if (node.nodeName === "STYLE" || node.nodeName === "SCRIPT") return;
        if (inside && node.nodeType === Node.TEXT_NODE) found.push(node.textContent);
        if (node.shadowRoot) walk(node.shadowRoot, true);
        node.childNodes.forEach(child => walk(child, inside));
    };
    walk(document.body, false);
    return found;
}"""


# --- keyboard, tables, links -----------------------------------------------------------------------------------------


def test_by_keyboard(page):
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.part") == "plot":
            break
    assert page.evaluate("document.activeElement.dataset.part") == "plot"
    left, right, top, bottom = start = ranges(page)
    page.keyboard.press("ArrowRight")
    assert ranges(page)[0] == pytest.approx(left + 0.15 * (right - left))
    page.keyboard.press("ArrowLeft")
    assert ranges(page) == pytest.approx(start)
    page.keyboard.press("ArrowDown")
    assert ranges(page)[2] == pytest.approx(top + 0.15 * (bottom - top))
    page.keyboard.press("ArrowUp")
    page.keyboard.press("+")
    closer = ranges(page)
    assert closer[1] - closer[0] == pytest.approx((right - left) / 1.4)
    assert closer[0] + closer[1] == pytest.approx(left + right)
    page.keyboard.press("-")
    assert ranges(page) == pytest.approx(start)
    page.keyboard.press("-")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("0")
    assert ranges(page) == pytest.approx(start)
    scrolled = page.evaluate("scrollY")
    page.keyboard.press("ArrowDown")  # moves the map, not the page
    assert page.evaluate("scrollY") == scrolled
    # a section opens by Enter
    page.locator(f"{ENTRIES['mine']} > summary").focus()
    assert not page.locator(f"{ENTRIES['mine']} .plot").is_visible()
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{ENTRIES['mine']} .map[data-ready]")
    assert part(page, "plot", "mine").is_visible()
    assert numbers(page, "mine")["scored"] == 72


def test_zoom_buttons_and_wheel(page):
    start = ranges(page)
    page.get_by_role("button", name="zoom in").first.click()
    assert ranges(page)[1] - ranges(page)[0] == pytest.approx((start[1] - start[0]) / 1.4)
    page.get_by_role("button", name="show all").first.click()
    assert ranges(page) == pytest.approx(start)
    part(page, "plot").hover()
    page.mouse.wheel(0, -300)  # without Ctrl the page moves, not the map
    page.wait_for_timeout(100)
    assert ranges(page) == pytest.approx(start)
    part(page, "plot").hover()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    page.wait_for_timeout(100)
    assert ranges(page)[1] - ranges(page)[0] < 0.95 * (start[1] - start[0])


def column(page, table: str, place: int) -> list[str]:
    rows = page.locator(f'table[data-name="{table}"] tbody tr')
    return [" ".join(row.locator("th, td").nth(place).text_content().split()) for row in rows.all()]


def test_tables_sort(page):
    """By Enter too; text from a to z, numbers from the largest; the other way the second time."""
    table = page.locator('table[data-name="sections"]')
    heads = {" ".join(head.text_content().split()): head for head in table.locator("th[scope=col]").all()}
    assert column(page, "sections", 0) == ["st_one", "visium_two", "mine"]
    section = heads["section"].get_by_role("button")
    section.focus()
    page.keyboard.press("Enter")
    assert column(page, "sections", 0) == ["mine", "st_one", "visium_two"]
    assert heads["section"].get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert column(page, "sections", 0) == ["visium_two", "st_one", "mine"]
    assert heads["section"].get_attribute("aria-sort") == "descending"
    area = heads["area, mm²"].get_by_role("button")
    area.click()
    assert heads["section"].get_attribute("aria-sort") is None
    assert heads["area, mm²"].get_attribute("aria-sort") == "descending"
    found = [float(text) for text in column(page, "sections", 5)]
    assert found == sorted(found, reverse=True)
    area.click()
    assert [float(text) for text in column(page, "sections", 5)] == sorted(found)
    assert heads["area, mm²"].get_attribute("aria-sort") == "ascending"
    # groups that are ranked apart stay apart
    names = [text.split(" ")[0] for text in column(page, "all uni", 0)]
    assert names == ["learned", "deep", "linear", "saw", "memory", "chance"]
    for head, orders in (("method", ("deep linear", "linear deep")), ("AUC", ("deep linear", "linear deep"))):
        button = page.locator('table[data-name="all uni"]').get_by_role("button", name=head, exact=True)
        for order in orders:
            button.click()
            names = [text.split(" ")[0] for text in column(page, "all uni", 0)]
            assert names == ["learned", *order.split(), "saw", "memory", "chance"]


def test_a_table_as_csv(page, study):
    shown = page.locator('table[data-name="all uni AUC by section"]')
    content = download(page, shown.locator("xpath=../preceding-sibling::button[1]"))
    found = read_csv(content, dtype=str).set_index("section")
    assert found.index.tolist() == list(reports.LABELLED)
    rows = study["metrics"]
    for section in reports.LABELLED:
        for variant in ("linear", "memory"):
            [column] = [name for name in found if name.split(" ")[0] == variant]
            [value] = rows[(rows.section == section) & (rows.variant == variant) & (rows.metric == "auc")]["value"]
            assert float(found.loc[section, column]) == pytest.approx(value, abs=5.1e-4)
    cells = [" ".join(cell.split()) for cell in shown.locator("tbody th, tbody td").all_text_contents()]
    assert found.reset_index().to_numpy().ravel().tolist() == cells


def test_spots_as_csv(page, study):
    entry = entry_of(study, "st_one")
    run = run_of(entry, "deep")
    found = read_csv(download(page, control(page, "spots-csv")))
    assert list(found) == ["section", "spot", "x_um", "y_um", "score", "call", "sd", "label", "region"]
    assert found["spot"].tolist() == entry["spots"]
    assert set(found["section"]) == {"st_one"}
    np.testing.assert_allclose(found[["x_um", "y_um"]], entry["spatial_px"] * 2.0, rtol=1e-6)
    np.testing.assert_allclose(found["score"], run["scores"], rtol=1e-6)
    np.testing.assert_allclose(found["sd"], run["sd"], rtol=1e-6)
    assert found["call"].tolist() == ["cancer" if call else "other" for call in run["calls"]]
    assert found["label"].tolist() == ["cancer" if label else "other" for label in entry["labels"]]
    assert found["region"].tolist() == entry["regions"]
    # the calls of the threshold that is set
    control(page, "threshold-number").fill("0.8")
    found = read_csv(download(page, control(page, "spots-csv")))
    assert found["call"].tolist() == ["cancer" if score >= 0.8 else "other" for score in run["scores"]]
    unfold(page, "visium_two")
    choose(page, "linear", "visium_two")
    found = read_csv(download(page, control(page, "spots-csv", "visium_two")))
    assert list(found) == ["section", "spot", "x_um", "y_um", "score", "probability", "call", "label", "region"]
    likely = run_of(entry_of(study, "visium_two"), "linear")["probability"]
    np.testing.assert_allclose(found["probability"], likely, rtol=1e-6)
    assert found["label"].tolist()[::9] == ["unknown"] * 25
    unfold(page, "mine")
    found = read_csv(download(page, control(page, "spots-csv", "mine")))
    assert list(found) == ["section", "spot", "x_um", "y_um", "score", "call", "sd"]


def test_a_link_opens_its_section(page):
    link = page.locator(f'.gallery a[href="{ENTRIES["visium_two"]}"]')
    expect(page.locator(f"{ENTRIES['visium_two']} > summary")).not_to_be_in_viewport()
    for _ in range(2):
        link.click()
        page.wait_for_selector(f"{ENTRIES['visium_two']} .map[data-ready]")
        assert page.locator(f"{ENTRIES['visium_two']} .plot").is_visible()
        expect(page.locator(f"{ENTRIES['visium_two']} > summary")).to_be_in_viewport()
        page.locator(f"{ENTRIES['visium_two']} > summary").click()  # folded again, the link opens it again
        assert not page.locator(f"{ENTRIES['visium_two']} .plot").is_visible()


def test_a_link_from_outside_opens_its_section(opened):
    """Two maps are drawn at the same time, each with its own spots."""
    with opened(ENTRIES["mine"]) as page:
        page.wait_for_selector(f"{ENTRIES['mine']} .map[data-ready]")
        assert numbers(page, "mine")["scored"] == 72
        drawn = page.evaluate(
            """Bokeh.documents.map(one => one.roots()[0]).filter(one => one.name === "map").map(
                one => one.renderers.find(of => of.name === "spots").data_source.data.x.length)"""
        )
        assert sorted(drawn) == [72, 120]


# --- marking spots ---------------------------------------------------------------------------------------------------


def mark(page, section: str = "st_one"):
    """Begin to mark; the plot."""
    control(page, "mark", section).click()
    plot = part(page, "plot", section)
    plot.scroll_into_view_if_needed()
    return plot


def pen(page, word: str, section: str = "st_one") -> None:
    part(page, "pens", section).get_by_label(word).check()


def around(page, entry, columns, rows, section: str = "st_one", number: int = 0) -> list[tuple[float, float]]:
    """The corners, px of the screen, of a box around columns and rows of a square array of spots."""
    box, spots = part(page, "plot", section).bounding_box(), places(page, entry, section, number)
    wide = round(1 + np.ptp(entry["spatial_px"][:, 0]) * entry["um_per_px"] / 200)
    (x0, y0), (x1, y1) = (spots[row * wide + column] for column, row in zip(columns, rows, strict=True))
    by = 0.4 * (spots[1, 0] - spots[0, 0])
    corners = (x0 - by, y0 - by), (x1 + by, y0 - by), (x1 + by, y1 + by), (x0 - by, y1 + by)
    return [(box["x"] + x, box["y"] + y) for x, y in corners]


def drag(page, corners) -> None:
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=5)
    page.mouse.up()


def spots_in(columns, rows, wide: int = 12) -> list[int]:
    return [row * wide + column for row in range(rows[0], rows[1] + 1) for column in range(columns[0], columns[1] + 1)]


def expected_marks(n: int, **spots) -> list[float]:
    """1 of the spots `cancer`, 0 of `other`, NaN of the rest."""
    label = np.full(n, np.nan)
    label[spots.get("other", [])], label[spots.get("cancer", [])] = 0, 1
    return label.tolist()


def saved(page, entry, folder, section: str = "st_one") -> list[float]:
    """The labels of all spots as ctrflow reads the file that is saved."""
    with page.expect_download() as waiting:
        control(page, "save-marks", section).click()
    assert waiting.value.suggested_filename == f"{section}.drawn.tsv"
    path = folder / "marked.tsv"
    waiting.value.save_as(path)
    assert path.read_text(encoding="utf-8").startswith("spot\tlabel\n")
    spots = section_of(entry["spatial_px"], section)
    spots.obs_names = entry["spots"]
    found = read_labels(path, spots, read_words(ROOT / "config" / "label_words.tsv"))
    assert found["label"].notna().sum() == len(path.read_text(encoding="utf-8").splitlines()) - 1
    return found["label"].to_numpy(float, na_value=np.nan).tolist()


def counted(page, section: str = "st_one") -> str:
    return part(page, "marked", section).text_content()


def test_a_lasso_by_mouse_marks_what_it_encloses(page, study, tmp_path):
    """Cancer, other, erased, undone; in the file are the marked spots alone, the one with an odd name too."""
    entry, start = entry_of(study, "st_one"), ranges(page)
    mark(page)
    drag(page, around(page, entry, (0, 3), (0, 2)))
    assert counted(page) == "12 cancer, 0 other"
    pen(page, "other")
    drag(page, around(page, entry, (5, 8), (6, 7)))
    pen(page, "erase")
    drag(page, around(page, entry, (3, 5), (2, 6)))
    assert counted(page) == "11 cancer, 7 other"
    control(page, "undo").click()
    assert counted(page) == "12 cancer, 8 other"
    page.mouse.click(*around(page, entry, (1, 1), (1, 1))[0])  # beside a spot: a click marks the one it is on
    assert counted(page) == "12 cancer, 8 other"
    box, spots = part(page, "plot").bounding_box(), places(page, entry)
    page.mouse.click(*(spots[13] + [box["x"], box["y"]]))
    assert counted(page) == "11 cancer, 8 other"
    assert ranges(page) == start  # the map has not moved
    cancer = [spot for spot in spots_in((0, 3), (0, 2)) if spot != 13]
    wanted = expected_marks(120, cancer=cancer, other=spots_in((5, 8), (6, 7)))
    np.testing.assert_array_equal(saved(page, entry, tmp_path), wanted)


def test_marks_are_seen_with_and_without_colours(page, study):
    entry = entry_of(study, "st_one")
    mark(page)
    drag(page, around(page, entry, (0, 3), (0, 2)))
    pen(page, "other")
    drag(page, around(page, entry, (5, 8), (6, 7)))
    with_picture(page)
    cancer, other = spots_in((0, 3), (0, 2)), spots_in((5, 8), (6, 7))
    found = at(pixels(page), places(page, entry))
    assert np.abs(found[cancer] - colour(plots.CANCER)).max() < 10
    assert found[other].min() > 220
    rest = np.setdiff1d(np.arange(120), cancer + other)
    assert np.abs(found[rest] - colour(plots.CANCER)).max(axis=1).min() > 40
    assert found[rest].min(axis=1).max() < 200
    choose(page, "memory")  # the marks are the section's
    found = at(pixels(page), places(page, entry))
    assert np.abs(found[cancer] - colour(plots.CANCER)).max() < 10
    assert counted(page) == "12 cancer, 8 other"


def test_a_lasso_in_a_closer_look_and_one_that_crosses_itself(page, study, tmp_path):
    """Zoom by wheel and pan by Shift work while marking; a loop in a loop stays inside."""
    entry = entry_of(study, "st_one")
    plot, start = mark(page), ranges(page)
    plot.hover()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    settle(page)
    closer = ranges(page)
    assert closer[1] - closer[0] < 0.95 * (start[1] - start[0])
    page.keyboard.down("Shift")
    drag(page, around(page, entry, (5, 7), (4, 6))[:2])
    page.keyboard.up("Shift")
    settle(page)
    moved = ranges(page)
    assert moved[0] < closer[0] - 300
    assert counted(page) == ""
    big, small = around(page, entry, (3, 6), (3, 6)), around(page, entry, (4, 5), (4, 5))
    drag(page, [*big, big[0], *small, small[0]])
    wanted = expected_marks(120, cancer=spots_in((3, 6), (3, 6)))
    np.testing.assert_array_equal(saved(page, entry, tmp_path), wanted)
    control(page, "mark").click()  # off: a drag moves the map again
    drag(page, around(page, entry, (4, 6), (4, 6))[:2])
    settle(page)
    assert ranges(page)[0] < moved[0] - 300
    assert counted(page) == "16 cancer, 0 other"


def test_a_lasso_by_touch(opened, study, tmp_path):
    """A finger draws, the page does not scroll; a second finger ends the stroke."""
    entry = entry_of(study, "st_one")
    phone = {"viewport": {"width": 400, "height": 800}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
    with opened(**phone) as page:
        control(page, "mark").tap()
        part(page, "plot").scroll_into_view_if_needed()
        scrolled, start = page.evaluate("scrollY"), ranges(page)
        session = page.context.new_cdp_session(page)

        def touch(kind: str, *places) -> None:
            points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        first, *rest = around(page, entry, (1, 4), (3, 5))
        touch("touchStart", first)
        for place in rest:
            touch("touchMove", place)
        touch("touchEnd")
        assert counted(page) == "12 cancer, 0 other"
        touch("touchStart", first)
        touch("touchMove", rest[0])
        touch("touchStart", rest[0], rest[1])
        touch("touchMove", rest[1], rest[2])
        touch("touchEnd")
        part(page, "pens").get_by_label("other").tap()
        box = part(page, "plot").bounding_box()
        page.touchscreen.tap(*(places(page, entry)[119] + [box["x"], box["y"]]))
        assert counted(page) == "12 cancer, 1 other"
        assert page.evaluate("scrollY") == scrolled
        assert ranges(page) == pytest.approx(start)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        wanted = expected_marks(120, cancer=spots_in((1, 4), (3, 5)), other=[119])
        np.testing.assert_array_equal(saved(page, entry, tmp_path), wanted)
        page.screenshot(path=tmp_path / "phone_marks.png")


def test_marking_by_keyboard(page, study, tmp_path):
    """From spot to spot by arrows; what a screen reader says; keys of the map come back at the end."""
    entry = entry_of(study, "st_one")
    plot, start = part(page, "plot"), ranges(page)
    usual = plot.get_attribute("aria-label")
    control(page, "mark").focus()
    page.keyboard.press("Enter")
    assert plot.get_attribute("role") == "application"
    assert "1 marks cancer" in plot.get_attribute("aria-label")
    page.keyboard.press("ArrowRight")  # the spot in the middle
    said = part(page, "at")
    assert said.get_attribute("aria-live") == "polite"
    first = re.fullmatch(r"spot (\d+)x(\d+): not marked", said.text_content())
    column, row = map(int, first.groups())
    assert abs(column - 5.5) < 1
    assert abs(row - 4.5) < 1
    for key in ("1", "ArrowRight", "2", "ArrowDown", "1", "ArrowLeft", "ArrowLeft", "1", "0"):
        page.keyboard.press(key)
    assert said.text_content() == f"spot {column - 1}x{row + 1}: not marked"
    assert counted(page) == "2 cancer, 1 other"
    page.keyboard.press("Control+z")
    assert said.text_content() == f"spot {column - 1}x{row + 1}: cancer"
    page.keyboard.press("Control+z")
    page.keyboard.press("2")
    assert part(page, "pens").get_by_label("other").is_checked()
    for key in ["ArrowUp"] * 12 + ["ArrowLeft"] * 12:  # no further than the first spot
        page.keyboard.press(key)
    assert said.text_content() == f"spot {reports.PLANTED}: not marked"
    page.keyboard.press("1")
    assert ranges(page) == pytest.approx(start)
    here = row * 12 + column
    wanted = expected_marks(120, cancer=[here, here + 13, 0], other=[here + 1, here + 11])
    np.testing.assert_array_equal(saved(page, entry, tmp_path), wanted)
    plot.focus()
    page.keyboard.press("Escape")
    assert control(page, "mark").get_attribute("aria-pressed") == "false"
    assert (plot.get_attribute("role"), plot.get_attribute("aria-label")) == ("group", usual)
    page.keyboard.press("ArrowRight")
    assert ranges(page)[0] > start[0]


def test_by_keyboard_every_spot_of_a_hexagonal_array_can_be_reached(page, study):
    """Rows and columns from any spot: up and down keep to a line although rows are shifted; the map follows."""
    unfold(page, "visium_two")
    mark(page, "visium_two")
    said = part(page, "at", "visium_two")
    entry = entry_of(study, "visium_two")
    name = dict(zip(entry["spots"], entry["spatial_px"], strict=True))

    def spot() -> str:
        return re.fullmatch(r"spot (.+): not marked", said.text_content()).group(1)

    for key in ["+"] * 4 + ["ArrowUp"] * 20 + ["ArrowLeft"] * 20:
        page.keyboard.press(key)
    corner = spot()
    assert corner == entry["spots"][0]
    assert ranges(page, 1)[0] < name[corner][0] * entry["um_per_px"] < ranges(page, 1)[1]
    seen = set()
    for row in range(14):
        begin = spot()
        seen.add(begin)
        for _ in range(15):
            page.keyboard.press("ArrowRight")
            seen.add(spot())
        for _ in range(15):
            page.keyboard.press("ArrowLeft")
        assert spot() == begin
        assert abs(name[begin][0] - name[corner][0]) < 51
        if row < 13:
            page.keyboard.press("ArrowDown")
    assert len(seen) == 16 * 14


def test_saved_marks_are_loaded_again(page, study, tmp_path):
    entry = entry_of(study, "st_one")
    mark(page)
    drag(page, around(page, entry, (0, 3), (0, 2)))
    before = saved(page, entry, tmp_path)
    pen(page, "erase")
    drag(page, around(page, entry, (0, 11), (0, 9)))
    assert counted(page) == "0 cancer, 0 other"
    assert control(page, "save-marks").is_disabled()
    control(page, "load-marks").set_input_files(tmp_path / "marked.tsv")
    expect(part(page, "marked")).to_have_text("12 cancer, 0 other")
    np.testing.assert_array_equal(saved(page, entry, tmp_path), before)
    other = tmp_path / "other.tsv"
    other.write_text("\ufeffspot\tlabel\r\n5x5\tother\r\n99x99\tcancer\r\n6x6\tstroma\r\n7x7\tconstructor\r\n")
    control(page, "load-marks").set_input_files(other)
    expect(part(page, "at")).to_have_text(re.compile("3 of 4 rows of other.tsv are not a spot of st_one"))
    assert counted(page) == "12 cancer, 1 other"


def test_unsaved_marks_are_not_lost_in_silence(page, study, tmp_path):
    """The browser asks before it leaves the page, as long as there are marks in no file."""
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    entry = entry_of(study, "st_one")
    mark(page)
    page.reload()
    page.wait_for_selector(f"{ENTRIES['st_one']} .map[data-ready]")
    assert asked == []
    mark(page)
    drag(page, around(page, entry, (0, 3), (0, 2)))
    saved(page, entry, tmp_path)
    page.reload()
    page.wait_for_selector(f"{ENTRIES['st_one']} .map[data-ready]")
    assert asked == []
    assert counted(page) == ""
    mark(page)
    drag(page, around(page, entry, (0, 3), (0, 2)))
    page.reload()
    assert asked == ["beforeunload"]


# --- other eyes, other screens ---------------------------------------------------------------------------------------


def test_on_a_phone(opened, study, tmp_path):
    phone = {"viewport": {"width": 400, "height": 800}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
    with opened(**phone) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        plot = part(page, "plot")
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400
        assert box["height"] >= 250
        for name in ("method", "opacity", "image", "threshold", "threshold-number", "spots-csv", "mark", "save-marks"):
            one = control(page, name)
            one.scroll_into_view_if_needed()
            box = one.bounding_box()
            assert box["x"] >= 0, name
            assert box["x"] + box["width"] <= 400, name
        page.locator(f'{ENTRIES["st_one"]} [data-input="layer"][value="call"]').tap()
        choose(page, "memory")
        control(page, "threshold-number").fill("0.6")
        entry = entry_of(study, "st_one")
        same_numbers(numbers(page), expected(entry, run_of(entry, "memory")["scores"] >= 0.6))
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        page.wait_for_selector(f"{ENTRIES['mine']} .map[data-ready]")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400  # with everything unfolded
        page.screenshot(path=tmp_path / "phone.png", full_page=True)


def contrast(one: str, other: str) -> float:
    """The contrast of two CSS colours (WCAG 2.1, 1.4.3)."""
    light = []
    for text in (one, other):
        share = np.array([int(number) for number in re.findall(r"\d+", text)[:3]]) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        light.append(linear @ [0.2126, 0.7152, 0.0722])
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(opened, tmp_path, scheme):
    """By day and in the dark, where the page itself is dark and the map as before."""
    with opened(color_scheme=scheme) as page:
        with_picture(page)
        page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (contrast(ground, "rgb(0, 0, 0)") < 3) == (scheme == "dark")
        pairs = page.evaluate(
            """() => ["main p", "small", ".soft", ".pill", "thead th", "td", ".legend span", ".numbers", "a", "button",
                "legend", "summary"].flatMap(what => {
                const one = document.querySelector(what);
                if (!one) return [];
                let under = one;
                while (getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") under = under.parentElement;
                return [[what, getComputedStyle(one).color, getComputedStyle(under).backgroundColor]];
            })"""
        )
        assert len(pairs) >= 10
        contrasts = {what: contrast(ink, ground) for what, ink, ground in pairs}
        assert {what: value for what, value in contrasts.items() if value < 4.5} == {}  # WCAG 2.1, 1.4.3, level AA


def test_called_spots_are_told_apart_without_colours(page, study, tmp_path):
    """A called spot is filled, another is a ring: their middles differ in light, with the H&E and without."""
    entry = entry_of(study, "st_one")
    called = run_of(entry, "deep")["calls"] == 1
    show(page, "call")
    with_picture(page)
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setEmulatedVisionDeficiency", {"type": "achromatopsia"})
    for image in (True, False):
        control(page, "image").set_checked(image)
        settle(page)
        picture = pixels(page)
        part(page, "plot").screenshot(path=tmp_path / f"grey_{image}.png")
        assert np.ptp(picture, axis=-1).max() <= 3  # no colour is left
        spots = places(page, entry)
        middle = at(picture, spots)[:, 0]
        assert middle[called].max() < middle[~called].min() - 15
        if not image:
            assert middle[~called].min() > 225  # hollow
        # the filling is as dark as stained tissue: there it is the rim that tells
        rim = darkest_rims(picture[..., 0], spots, page, entry)
        assert rim[called].max() < 100
        assert rim[~called].min() > 140


def darkest_rims(light, spots, page, entry) -> np.ndarray:
    """The darkest of five pixels across the right rim of each spot."""
    left, right, *_ = ranges(page)
    um_per_px = (right - left) / (part(page, "plot").bounding_box()["width"] - 2)
    columns = (spots[:, 0] + entry["spot_um"] / 2 / um_per_px).round().astype(int)
    rows = spots[:, 1].round().astype(int)
    return np.min([light[rows, columns + right] for right in range(-2, 3)], axis=0)


def test_on_paper(page, tmp_path):
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not control(page, "mark").is_visible()
    page.screenshot(path=tmp_path / "print.png", full_page=True)


def test_without_javascript(opened):
    """The tables are there, and the page says what is missing."""
    with opened(java_script_enabled=False) as page:
        missing = page.locator(f"{ENTRIES['st_one']} .banner", has_text="This map needs JavaScript")
        assert missing.is_visible()
        assert page.locator('table[data-name="all uni"]').is_visible()
        assert page.locator(".gallery img").first.is_visible()
