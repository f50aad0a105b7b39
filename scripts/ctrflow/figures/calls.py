"""Agreement of the calls at the label-free threshold with the labels (MEATRD Figure 3)."""

import numpy as np

from ctrflow.figures import bars, settings
from ctrflow.figures.listing import drawn, not_drawn
from ctrflow.results import metrics

TITLE = "Calls at the label-free threshold"
CAPTION = (
    "Precision (share of the called spots that are cancer), recall (share of the cancer spots that are called) and F1"
    " of the calls on the mean score over seeds, whose threshold was found without labels. Bars are means over a "
    "patient's sections, then over patients; dots are sections."
)
# its text on Figure 3
PRINTED = " MEATRD prints precision 0.693 and recall 0.895 for the tumour edge of 10x-hBC-I1 (hBC_I1), with beta 0.1."
EDGE_SECTION = "hBC_I1"
MEASURES = {"precision": "precision", "recall": "recall", "f1": "F1"}
COLUMNS = ["variant", "group", "section", "patient", "spots", "labelled", "called", "hits", "threshold", *MEASURES]


def draw(setting: dict) -> dict:
    """Bars of precision, recall and F1, one row per method; the table also has sections of one class."""
    sections, both = settings.labelled(setting), settings.two_classes(setting)
    if not both:
        return not_drawn(TITLE, "No section has labelled spots of both classes.")
    table = _table(setting, sections)
    shown = table[table["section"].isin([one["section"] for one in both])]
    names = [name for name in setting["variants"] if name in set(shown["variant"])]
    columns = {}
    for measure, word in MEASURES.items():
        points = {name: shown.loc[shown["variant"] == name, measure].dropna() for name in names}
        patients = shown.groupby(["variant", "patient"])[measure].mean()
        columns[word] = {name: float(patients[name].mean()) for name in names}, points
    picture = bars.draw(settings.heading(setting, TITLE), names, setting["groups"], columns, len(both) > 1)
    edge = any(one["section"] == EDGE_SECTION for one in sections)
    return drawn(TITLE, CAPTION + PRINTED * edge, [picture], {"": table})


def _table(setting, sections):
    """A row for each method and section; `spots` are those with a label."""
    import pandas as pd

    rows = []
    for variant in setting["variants"]:
        for one in sections:
            if variant not in one["calls"]:
                continue
            known = np.isfinite(one["label"])
            truth, called = one["label"][known] == 1, one["calls"][variant].to_numpy()[known] == 1
            labelled, hits = truth.sum(), (truth & called).sum()
            precision = hits / called.sum() if called.any() else np.nan
            recall, f1 = (hits / labelled, metrics.f1(truth, called)) if labelled else (np.nan, np.nan)
            counts = [len(truth), labelled, called.sum(), hits, one["thresholds"][variant].threshold]
            about = [variant, setting["groups"][variant], one["section"], one["patient"]]
            rows.append([*about, *counts, precision, recall, f1])
    return pd.DataFrame(rows, columns=COLUMNS)
