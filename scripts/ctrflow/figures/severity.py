"""Mean scores of invasive cancer, cancer in situ and normal tissue, section by section (SpaCRD Figure 6)."""

from itertools import combinations

import numpy as np

from ctrflow import plots
from ctrflow.figures import page, settings
from ctrflow.figures.listing import drawn, not_drawn
from ctrflow.results import benchmark

TITLE = "Score and severity"
CAPTION = (
    "Mean score of the spots in invasive cancer, cancer in situ and normal tissue, by the annotator's words, with 95 "
    "% intervals over spots. Above: how many pairs of the groups differ by a two-sided Mann-Whitney test, Holm-"
    "corrected within method and section (p < 0.05), of how many. Spots of a section are neighbours and not "
    "independent, so intervals are too narrow and p values too small."
)
# group -> word, colour of Okabe & Ito (2008), marker
GROUPS = {
    "invasive": ("invasive", plots.CANCER, "o"),
    "in_situ": ("in situ", "#e69f00", "D"),
    "normal": ("normal", plots.OTHER, "^"),
}
METHODS, SECTIONS = 12, 10  # at most on a page
COLUMNS_ACROSS = 3
LEVEL = 0.05
NAME = 1.3  # inches, at most, of a section's name
COLUMNS = ["variant", "section", "group", "spots", "mean", "low", "high", "kruskal_h", "kruskal_p"]
PAIR_COLUMNS = ["variant", "section", "one", "other", "spots_one", "spots_other", "u", "p", "p_holm"]


def draw(setting: dict) -> dict:
    """One panel per method; sections with at least two of the groups."""
    sections = [one for one in settings.labelled(setting) if len(_groups(one)) > 1]
    if not sections:
        return not_drawn(
            TITLE, "No section has annotated regions of two of invasive cancer, cancer in situ and normal tissue."
        )
    table, pairs = _tables(setting, sections)
    pictures = [
        _page(setting, names, some, table, pairs)
        for some in page.pages(sections, SECTIONS)
        for names in page.pages(setting["variants"], METHODS, columns=COLUMNS_ACROSS)
    ]
    return drawn(TITLE, CAPTION, pictures, {"": table, "_tests": pairs})


def interval(values) -> tuple[float, float, float]:
    """Mean and 95 % interval (Student's t); a single value has no interval (NaN)."""
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def kruskal(groups: list) -> tuple[float, float]:
    """Kruskal and Wallis's H and its p; NaN if all values are equal."""
    from scipy import stats

    if np.ptp(np.concatenate(groups)) == 0:
        return np.nan, np.nan
    return tuple(map(float, stats.kruskal(*groups)))


def mann_whitney(one, other) -> tuple[float, float]:
    """Mann and Whitney's U of the first and its two-sided p; p is 1 if all values are equal."""
    from scipy import stats

    if np.ptp(np.concatenate([one, other])) == 0:
        return len(one) * len(other) / 2, 1.0
    return tuple(map(float, stats.mannwhitneyu(one, other, alternative="two-sided")))


def _groups(section) -> list[str]:
    """The groups that a section has spots of."""
    return [group for group in GROUPS if (section["severity"] == group).any()]


def _tables(setting, sections):
    """Means and tests of every method and section."""
    import pandas as pd

    means, pairs = [], []
    for variant in setting["variants"]:
        for section in sections:
            if variant not in section["scores"]:
                continue
            scores, name = section["scores"][variant].to_numpy(dtype=float), section["section"]
            of = {group: scores[section["severity"] == group] for group in _groups(section)}
            test = kruskal(list(of.values()))
            means += [[variant, name, group, len(own), *interval(own), *test] for group, own in of.items()]
            tests = [(one, other, *mann_whitney(of[one], of[other])) for one, other in combinations(of, 2)]
            corrected = benchmark.holm([p for *_, p in tests])
            pairs += [
                [variant, name, one, other, len(of[one]), len(of[other]), u, p, p_holm]
                for (one, other, u, p), p_holm in zip(tests, corrected, strict=True)
            ]
    return pd.DataFrame(means, columns=COLUMNS), pd.DataFrame(pairs, columns=PAIR_COLUMNS)


def _page(setting, names, sections, table, pairs) -> bytes:
    order = [one["section"] for one in sections]
    columns = min(COLUMNS_ACROSS, len(names))
    wide, high = max(1.2 + 0.3 * len(order), 2.3), 1.55
    longest = page.length(max(order, key=len), page.SMALL)
    upright = longest > (wide - 0.6) / len(order)
    foot = 0.42 + upright * min(longest, NAME)
    figure, panels = page.grid(len(names), columns, wide, high, 0.42, 0.26, settings.heading(setting, TITLE), foot)
    for number, (axes, name) in enumerate(zip(panels, names, strict=True)):
        own, tests = table[table["variant"] == name], pairs[pairs["variant"] == name]
        _panel(axes, own, order)
        _agreement(axes, tests, order)
        page.title(axes, name)
        axes.yaxis.set_major_locator(page.few(3))
        lowest = number >= len(names) - columns
        shown = [page.fit(section, NAME, page.SMALL)[0] if lowest else "" for section in order]
        turn = 90 if upright else 0
        axes.set_xticks(range(len(order)), shown, rotation=turn, fontsize=page.SMALL, parse_math=False)
    page.legend(figure, [(colour, marker, word) for word, colour, marker in GROUPS.values()])
    return page.png(figure)


def _agreement(axes, tests, order) -> None:
    """Above each section, the number of pairs that differ and of pairs tested."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.14 * (high - low))
    for place, section in enumerate(order):
        p_holm = tests.loc[tests["section"] == section, "p_holm"]
        if len(p_holm):
            text = f"{(p_holm < LEVEL).sum()}/{len(p_holm)}"
            style = {"ha": "center", "va": "top", "fontsize": page.SMALL - 1, "color": "#57606a"}
            axes.text(place, 0.99, text, transform=axes.get_xaxis_transform(), **style)


def _panel(axes, own, order) -> None:
    for number, (group, (_, colour, marker)) in enumerate(GROUPS.items()):
        rows = own[(own["group"] == group) & own["section"].isin(order)]
        x = rows["section"].map(order.index).to_numpy(dtype=float) + 0.22 * (number - 1)
        axes.vlines(x, rows["low"], rows["high"], color=colour, linewidth=1.4, zorder=2)
        axes.scatter(x, rows["mean"], s=16, color=colour, marker=marker, linewidths=0, zorder=3)
    for place in range(1, len(order)):
        axes.axvline(place - 0.5, color="#e4e8ec", linewidth=0.7, zorder=0)
    axes.set_xlim(-0.5, len(order) - 0.5)
