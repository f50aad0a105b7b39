"""Separation of the scores of cancer and other spots, by method (SpaCRD Figure 4)."""

import numpy as np

from ctrflow.figures import bars, settings
from ctrflow.figures.listing import drawn, not_drawn

TITLE = "Kolmogorov-Smirnov statistic"
CAPTION = (
    "The largest distance between the cumulative distributions of the scores of cancer and of other spots: 0 where "
    "they are the same, 1 where they do not overlap. Bars are means over seeds, over a patient's sections and over "
    "patients, dots are sections. Controls are no methods: they show what chance and the truth itself would reach."
)
COLUMNS = ["variant", "group", "section", "patient", "seeds", "ks"]


def draw(setting: dict) -> dict:
    """One bar per method, including controls."""
    rows = setting["metrics"]
    rows = rows[(rows["metric"] == "ks") & rows["value"].notna()]
    if rows.empty:
        return not_drawn(TITLE, "No section has labelled spots of both classes.")
    table = _table(rows, setting)
    overall = table[table["section"].isna()].set_index("variant")["ks"]
    groups = {variant: group for variant, group in setting["groups"].items() if variant in overall.index}
    names = settings.in_order(groups, overall.to_dict())
    points = {name: table.loc[(table["variant"] == name) & table["section"].notna(), "ks"] for name in names}
    columns = {"KS statistic": (overall.to_dict(), points)}
    picture = bars.draw(settings.heading(setting, TITLE), names, groups, columns, rows["section"].nunique() > 1)
    return drawn(TITLE, CAPTION, [picture], {"": table})


def _table(rows, setting):
    """A row for each method and section, the mean over seeds, and one without a section for the mean over all."""
    import pandas as pd

    lines = []
    for variant, of in rows.groupby("variant", sort=False):
        group = setting["groups"][variant]
        lines.append([variant, group, None, None, of["seed"].nunique(), setting["ks"][variant]])
        for section, own in of.groupby("section", sort=False):
            patient = own["patient"].iloc[0]
            lines.append([variant, group, section, patient, own["seed"].nunique(), float(np.mean(own["value"]))])
    return pd.DataFrame(lines, columns=COLUMNS)
