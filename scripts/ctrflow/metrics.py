"""How well scores find cancer (METHODS.md section 0, the metrics of both papers)."""

import numpy as np

METRICS = ("auc", "ap", "f1_true_ratio", "f1_gmm", "ks")


def f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """F1 of the positive class; 0 where nothing is positive and nothing is called."""
    hits = np.sum(truth & predicted)
    total = truth.sum() + predicted.sum()
    return float(2 * hits / total) if total else 0.0


def f1_true_ratio(truth: np.ndarray, scores: np.ndarray) -> float:
    """F1 when as many spots are called as are cancer (the papers' F1).

    The threshold is the (100 n_neg / n)-th percentile of the scores (linear interpolation), calls are scores >= it.
    It uses the true prevalence: an upper estimate, not a result a user can have.
    """
    threshold = np.percentile(scores, 100.0 * np.sum(~truth) / len(truth))
    return f1(truth, scores >= threshold)


def evaluate(truth, scores, calls=None) -> dict[str, tuple[float, str]]:
    """All metrics of one section.

    Parameters
    ----------
    truth : (n,) 1 cancer, 0 other, NaN unknown (those spots are left out)
    scores : (n,) finite, higher = more cancer-like
    calls : (n,) 0/1 by the label-free threshold, or None

    Returns
    -------
    metric name -> (value, note); a value that cannot be computed is NaN and the note says why.
    """
    from scipy.stats import ks_2samp
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth = np.asarray(truth, dtype=float)
    known = ~np.isnan(truth)
    truth, scores = truth[known].astype(bool), np.asarray(scores, dtype=float)[known]
    results = {"n_spots": (float(known.sum()), ""), "prevalence": (float(truth.mean()) if known.any() else np.nan, "")}
    if not known.any() or truth.all() or not truth.any():
        note = (
            "no labelled spot" if not known.any() else f"one class only ({'all' if truth.all() else 'no'} spots cancer)"
        )
        return results | dict.fromkeys(METRICS, (np.nan, note))
    results["auc"] = (float(roc_auc_score(truth, scores)), "")
    results["ap"] = (float(average_precision_score(truth, scores)), "")
    results["f1_true_ratio"] = (f1_true_ratio(truth, scores), "")
    results["ks"] = (float(ks_2samp(scores[~truth], scores[truth]).statistic), "")
    results["f1_gmm"] = (np.nan, "no calls")
    if calls is not None:
        results["f1_gmm"] = (f1(truth, np.asarray(calls)[known].astype(bool)), "")
    return results


def study_table(study: str, runs: list[dict], calls: list, labels: dict, patients: dict):
    """The metrics of every run on every section, long: one row a metric.

    Parameters
    ----------
    runs : task, fold, encoder, method, variant, regime, seed of each run
    calls : for each run its table (section, spot, score, call)
    labels : section id -> label table; a section without is listed with a note
    patients : section id -> patient
    """
    import pandas as pd

    rows = []
    for run, table in zip(runs, calls, strict=True):
        for section, group in table.groupby("section", sort=False):
            found = _section_metrics(group, labels.get(section))
            for metric, (value, note) in found.items():
                rows.append(
                    {
                        **run,
                        "section": section,
                        "patient": patients[section],
                        "metric": metric,
                        "value": value,
                        "note": note,
                    }
                )
    columns = [
        "task",
        "fold",
        "encoder",
        "section",
        "patient",
        "method",
        "variant",
        "regime",
        "seed",
        "metric",
        "value",
        "note",
    ]
    frame = pd.DataFrame(rows, columns=columns)
    frame.insert(0, "study", study)
    return frame


def _section_metrics(group, labels) -> dict[str, tuple[float, str]]:
    if labels is None:
        return dict.fromkeys(METRICS, (np.nan, "not labelled")) | {"n_spots": (float(len(group)), "")}
    truth = labels.set_index("spot")["label"].astype(float)
    missing = set(group.spot) - set(truth.index)
    if missing:
        raise ValueError(f"labels lack {len(missing)} scored spots")
    return evaluate(truth.loc[group.spot].to_numpy(), group.score.to_numpy(), group.call.to_numpy())
