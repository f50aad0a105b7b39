"""Expression of spots called cancer but labelled other (SpaCRD Figure 7)."""

import numpy as np

from ctrflow import plots
from ctrflow.errors import first_few
from ctrflow.figures import page, settings
from ctrflow.figures.listing import drawn, not_drawn
from ctrflow.figures.severity import mann_whitney
from ctrflow.results import benchmark

TITLE = "Spots called cancer but labelled other"
GENES = ("ERBB2", "CCND1", "ACTB")  # those of SpaCRD's Figure 7
CAPTION = (
    "Log-normalised expression of spots that a method calls cancer and the annotator labelled other (middle), against"
    " normal spots (labelled other and not called) and cancer spots (labelled so), each less the mean of the "
    "section's own normal spots, so that sections of different depth and patients can stand together. Boxes hold the "
    "middle half, whiskers the 5th to 95th percentile. A star: the middle differs from normal spots, two-sided Mann-"
    "Whitney, Holm-corrected over the genes, p < 0.05; spots of a section are not independent, so p values are too "
    "small."
)
METHODS = 4
GROUPS = {"normal": plots.OTHER, "called, labelled other": "#e69f00", "cancer": plots.CANCER}
LEVEL = 0.05
COLUMNS = [
    "variant", "section", "gene", "normal", "discordant", "cancer", "mean_normal", "mean_discordant", "mean_cancer",
    "fold_change", "u", "p", "p_holm", "note",
]  # fmt: skip


def genes(markers) -> list[str]:
    """The genes to show: those of the paper, then the marker genes of the study's tissues."""
    return list(dict.fromkeys([*GENES, *markers]))


def draw(setting: dict) -> dict:
    """A row of boxes for each of the best methods that has such spots."""
    sections, names = settings.labelled(setting), settings.best(setting, METHODS)
    if not sections or not names:
        return not_drawn(TITLE, "No section is labelled." if not sections else "No method has an AUC.")
    spots = {name: [_groups(one, name) for one in sections if name in one["calls"]] for name in names}
    spots = {
        name: [one for one in of if one["groups"][1].any() and one["groups"][0].any()] for name, of in spots.items()
    }
    spots = {name: of for name, of in spots.items() if of and _measured(of)}
    if not spots:
        return not_drawn(
            TITLE, "No section has spots called cancer but labelled other, normal spots and one of the genes measured."
        )
    table = _table(spots, setting["genes"])
    shown = [gene for gene in setting["genes"] if any(gene in _measured(of) for of in spots.values())]
    caption = CAPTION + _missing(setting["genes"], sections, spots)
    return drawn(TITLE, caption, [_draw(setting, spots, shown, table)], {"": table})


def _groups(section, name: str) -> dict:
    """The section's expression, and its normal, discordant and cancer spots (three masks)."""
    label, called = section["label"], section["calls"][name].to_numpy() == 1
    masks = (label == 0) & ~called, (label == 0) & called, label == 1
    return {"section": section["section"], "expression": section["expression"], "groups": masks}


def _measured(sections) -> list[str]:
    return list(dict.fromkeys(gene for one in sections for gene in one["expression"]))


def _missing(wanted, sections, spots) -> str:
    """The end of the caption: genes that the sections shown do not measure."""
    shown = {one["section"] for of in spots.values() for one in of}
    gaps = {
        one["section"]: [gene for gene in wanted if gene not in one["expression"]]
        for one in sections
        if one["section"] in shown
    }
    parts = [f"{name}: {first_few(lacking, 20)}" for name, lacking in gaps.items() if lacking]
    return f" Not measured in {'; '.join(parts)}." if parts else ""


def _table(spots, wanted):
    """A row for each method, section and gene, and without a section for all sections together."""
    import pandas as pd

    rows = []
    for variant, sections in spots.items():
        for some in [sections, *([one] for one in sections)] if len(sections) > 1 else [sections]:
            section = some[0]["section"] if len(some) == 1 else None
            lines = [_line(some, gene) for gene in wanted]
            tested = [line for line in lines if "p" in line]
            for line, p_holm in zip(tested, benchmark.holm([line["p"] for line in tested]), strict=True):
                line["p_holm"] = p_holm
            rows += [{"variant": variant, "section": section} | line for line in lines]
    return pd.DataFrame(rows, columns=COLUMNS)


def _line(sections, gene: str) -> dict:
    """The means of a gene in the groups, the fold change and the test of discordant against normal spots.

    The fold change is of normalised counts: the sum over the discordant spots, divided by the sum expected from the
    mean of each section's normal spots. For several sections, means and test use `_centred` values.
    """
    own = [one for one in sections if gene in one["expression"]]
    if not own:
        return {"gene": gene, "note": "not measured"}
    values = [_centred(own, gene, group) for group in range(3)]
    if len(sections) == 1:
        values = [own[0]["expression"][gene].to_numpy()[mask] for mask in own[0]["groups"]]
    u, p = mann_whitney(values[1], values[0])
    counts = [np.expm1(one["expression"][gene].to_numpy()) for one in own]
    seen = sum(count[one["groups"][1]].sum() for count, one in zip(counts, own, strict=True))
    expected = sum(
        count[one["groups"][0]].mean() * one["groups"][1].sum() for count, one in zip(counts, own, strict=True)
    )
    sizes = dict(zip(("normal", "discordant", "cancer"), map(len, values), strict=True))
    means = {f"mean_{group}": _mean(of) for group, of in zip(sizes, values, strict=True)}
    return {"gene": gene, **sizes, **means, "u": u, "p": p} | (
        {"fold_change": seen / expected} if expected > 0 else {"note": "no count in normal spots"}
    )


def _mean(values) -> float:
    # removes rounding noise of values that cancel
    return float(np.round(np.mean(values), 12)) + 0.0 if len(values) else np.nan


def _centred(sections, gene: str, group: int) -> np.ndarray:
    """The gene's values in a group of spots of all sections, minus the mean of each section's normal spots.

    A rank test on such values is an aligned rank test (Hodges and Lehmann, Annals of Mathematical Statistics 33:482,
    1962).
    """
    parts = []
    for one in sections:
        values = one["expression"][gene].to_numpy()
        parts.append(values[one["groups"][group]] - values[one["groups"][0]].mean())
    return np.concatenate(parts)


def _draw(setting, spots, shown: list[str], table) -> bytes:
    wide, high = 0.55 * len(shown) + 0.75, 1.65
    figure = page.sheet(max(wide, 4.6), page.HEAD + len(spots) * high + 0.75, settings.heading(setting, TITLE))
    for number, (name, sections) in enumerate(spots.items()):
        axes = page.panel(figure, 0.62, page.HEAD + number * high + 0.26, wide - 0.72, high - 0.34)
        count = sum(int(one["groups"][1].sum()) for one in sections)
        about = f"{count:,} such spots in {len(sections)} section{'s' * (len(sections) > 1)}"
        page.title(axes, f"{name}: {setting['groups'][name]}; {about}", figure.get_size_inches()[0] - 0.72)
        overall = table[(table["variant"] == name) & (table["section"].isna() | (len(sections) == 1))]
        _panel(axes, sections, shown, overall.set_index("gene")["p_holm"])
        last = number == len(spots) - 1
        names = shown if last else [""] * len(shown)
        axes.set_xticks(range(len(shown)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_ylabel("expression less\nnormal spots", fontsize=page.SMALL, color=plots.INK, labelpad=2)
    page.legend(figure, [(colour, "s", group) for group, colour in GROUPS.items()])
    return page.png(figure)


def _panel(axes, sections, shown, p_holm) -> None:
    axes.axhline(0, color="#8c959f", linewidth=0.7, zorder=0)
    for place, gene in enumerate(shown):
        own = [one for one in sections if gene in one["expression"]]
        for number, colour in enumerate(GROUPS.values() if own else ()):
            values = _centred(own, gene, number)
            if not len(values):
                continue
            low, first, median, third, high = np.percentile(values, (5, 25, 50, 75, 95))
            stats = {"med": median, "q1": first, "q3": third, "whislo": low, "whishi": high}
            axes.bxp(
                [stats], positions=[place + 0.26 * (number - 1)], widths=0.2, showfliers=False, patch_artist=True,
                manage_ticks=False, showcaps=False, boxprops={"facecolor": colour, "edgecolor": "none"},
                medianprops={"color": plots.INK, "linewidth": 1.2}, whiskerprops={"color": colour, "linewidth": 1.1},
            )  # fmt: skip
        if p_holm.get(gene, np.nan) < LEVEL:
            axes.text(place, 0.9, "*", transform=axes.get_xaxis_transform(), ha="center", va="center",
                      fontsize=page.LARGE + 2, color=plots.INK)  # fmt: skip
    axes.set_xlim(-0.6, len(shown) - 0.4)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.16 * (high - low))
