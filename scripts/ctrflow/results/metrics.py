"""Metrics of scores against labels (METHODS.md section 0, the metrics of both papers).

A metric is an entry of `METRICS`; tables, ranks, intervals, the report and the comparison with the papers use it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ctrflow.results import verdict, weighted
from ctrflow.results.scores import taught

FACTS = ("n_spots", "prevalence")  # listed with the metrics of a section
# rank correlations of the scores with what needs no training: metric -> column of a section's yardsticks
RHOS = {"rho_library_size": "library_size", "rho_darkness": "darkness"}
RUN = ("task", "fold", "encoder", "variant", "seed")  # the columns that name a run
BINS = 10
NOT_A_PROBABILITY = "not a probability"
# Regimes whose scores can be probabilities. A distance from healthy tissue or a marker level may lie in [0, 1] without
# being one; the controls `random` and `oracle` are kept for comparison.
PROBABILITIES = ("labelled_source", "control")
GLANDS = re.compile(r"\bglands?\b", re.IGNORECASE)  # a pathologist's word for normal epithelium, where labelled other


@dataclass(frozen=True)
class Metric:
    """A metric. All are in metrics.tsv and have means and ranks in the tables of the benchmark.

    name, title : in tables; in the report
    compute : (truth, values) -> number, for truth (n,) bool with both classes, true = cancer, and values (n,)
    needs : the kind of values: `scores`; `mixture`, calls of the label-free threshold; `calls`, those of the map, from
        probability and verdict; `probability`, that of the model, else scores that estimate the share of cancer;
        `glands`, calls of normal glands; `free`, calls in a section without cancer; `verdict`
    low, high : its range
    chance : value for scores without information, `prevalence` for the share of cancer; None if meaningless
    in_report, on_maps : whether it is shown in the report's tables; next to the map of a section
    paired : whether methods are compared pairwise by it
    weighted : the metric for all draws of a bootstrap, `weighted.Drawn` -> (draws,); None for no interval
    """

    name: str
    title: str
    compute: Callable
    needs: str = "scores"
    higher_is_better: bool = True
    low: float = 0.0
    high: float = 1.0
    chance: float | str | None = None
    in_report: bool = True
    on_maps: bool = False
    paired: bool = False
    weighted: Callable | None = None


def auc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return roc_auc_score(truth, scores)


def ap(truth: np.ndarray, scores: np.ndarray) -> float:
    """Average precision, step-wise."""
    from sklearn.metrics import average_precision_score

    return average_precision_score(truth, scores)


def ks(truth: np.ndarray, scores: np.ndarray) -> float:
    """Two-sample Kolmogorov-Smirnov statistic of the scores of cancer and of other spots."""
    from scipy.stats import ks_2samp

    return ks_2samp(scores[~truth], scores[truth]).statistic


def f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """F1 of the positive class; 0 if nothing is positive and nothing is called."""
    hits = np.sum(truth & predicted)
    total = truth.sum() + predicted.sum()
    return float(2 * hits / total) if total else 0.0


def balanced_accuracy(truth: np.ndarray, called: np.ndarray) -> float:
    """Mean of the shares of cancer spots that are called and of other spots that are not."""
    return float((called[truth].mean() + 1 - called[~truth].mean()) / 2)


def called_share(truth: np.ndarray, called: np.ndarray) -> float:
    """The share of spots that are called, where none is cancer."""
    return float(called.mean())


def verdict_right(truth: np.ndarray, said: str) -> float:
    """1 if the verdict is `tumour found` with a spot labelled cancer, `no tumour found` without one; else 0."""
    return float(said == (verdict.FOUND if truth.any() else verdict.NONE))


def f1_true_ratio(truth: np.ndarray, scores: np.ndarray) -> float:
    """F1 if as many spots are called as are labelled cancer (the papers' F1).

    The threshold is the (100 n_neg / n)-th percentile of the scores (linear interpolation), calls are scores >= it.
    It uses the true prevalence, so it is optimistic and not available to a user without labels.
    """
    threshold = np.percentile(scores, 100.0 * np.sum(~truth) / len(truth))
    return f1(truth, scores >= threshold)


def reliability(truth, scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean score and share of cancer in ten bins of equal width (Naeini et al., AAAI 2015).

    A bin includes its upper edge but not its lower one; the first also includes 0.

    Parameters
    ----------
    truth : (n,) bool, true = cancer
    scores : (n,) in [0, 1]

    Returns
    -------
    (mean_score, share, spots): per bin, (10,) each; share = cancer spots / spots; NaN in empty bins.
    """
    scores = np.asarray(scores, dtype=float)
    # exact tenths: with linspace, 0.3 would be above its bin edge
    place = np.searchsorted(np.arange(1, BINS) / BINS, scores)
    spots = np.bincount(place, minlength=BINS)
    filled = np.where(spots, spots, np.nan)
    mean_score = np.bincount(place, weights=scores, minlength=BINS) / filled
    share = np.bincount(place, weights=np.asarray(truth, dtype=float), minlength=BINS) / filled
    return mean_score, share, spots


def ece(truth, scores) -> float:
    """Expected calibration error: |mean score - share of cancer| of the bins of `reliability`, weighted by spots."""
    mean_score, share, spots = reliability(truth, scores)
    return float(np.nansum(spots * np.abs(mean_score - share)) / spots.sum())


def brier(truth, scores) -> float:
    """Brier score: mean squared distance of the score from 1 (cancer) or 0 (other)."""
    return float(np.mean((np.asarray(scores, dtype=float) - np.asarray(truth, dtype=float)) ** 2))


METRICS = (
    Metric("auc", "AUC", auc, chance=0.5, on_maps=True, paired=True, weighted=weighted.auc),
    Metric("ap", "AP", ap, chance="prevalence", on_maps=True, paired=True, weighted=weighted.ap),
    Metric("f1_true_ratio", "F1, true ratio", f1_true_ratio, chance="prevalence", on_maps=True, paired=True),
    Metric("f1_gmm", "F1, GMM threshold", f1, needs="mixture", on_maps=True, paired=True, weighted=weighted.f1),
    Metric("balanced_accuracy", "Balanced accuracy of the calls", balanced_accuracy, needs="calls", chance=0.5),
    Metric("ks", "KS", ks, chance=0.0, on_maps=True),
    # constant scores at the prevalence have no calibration error but no use either: no chance level for ECE
    Metric("ece", "ECE", ece, needs="probability", higher_is_better=False),
    Metric("brier", "Brier score", brier, needs="probability", higher_is_better=False, in_report=False),
    Metric("false_call_share", "Called where there is no tumour", called_share, needs="free", higher_is_better=False),
    Metric("glands_called", "Called normal glands", called_share, needs="glands", higher_is_better=False),
    Metric("verdict_right", "Verdict right", verdict_right, needs="verdict"),
)
ONE_CLASS = ("free", "glands", "verdict")  # needs of metrics that a section without cancer has too


def evaluate(
    truth, scores, mixture=None, probability: bool = True, *, calls=None, likely=None, words=None, said: str = ""
) -> dict[str, tuple[float, str]]:
    """All metrics of one section.

    Parameters
    ----------
    truth : (n,) 1 cancer, 0 other, NaN unknown (those spots are left out)
    scores : (n,) finite, higher = more cancer-like
    mixture : (n,) 0/1 by the label-free threshold, or None
    probability : whether scores are meant as probabilities, where there are none; else, and outside [0, 1], ece and
        brier are NaN
    calls : (n,) 0/1, those of the map, or None
    likely : (n,) the probability, or None
    words : (n,) the pathologist's words, or None
    said : the verdict; "" without one

    Returns
    -------
    metric name -> (value, note), metrics of scores first; a missing value is NaN, with the reason in its note.
    """
    truth = np.asarray(truth, dtype=float)
    known = np.flatnonzero(~np.isnan(truth))
    labels, none = truth[known].astype(bool), "" if len(known) else "no labelled spot"
    own = scores if likely is None else likely
    of = {
        name: None if values is None else np.asarray(values)[known]
        for name, values in (("score", scores), ("own", own), ("mixture", mixture), ("call", calls), ("word", words))
    }
    mixture, calls = (None if of[name] is None else of[name].astype(bool) for name in ("mixture", "call"))
    glands = ~labels & (np.zeros(len(known), dtype=bool) if words is None else _glands(of["word"]))
    no_calls = none or ("no calls" if calls is None else "")
    is_own = likely is not None or (probability and not none and _within_unit(of["own"]))
    given = {  # what metrics need -> (labels, values, why there are none)
        "scores": (labels, of["score"].astype(float), none),
        "mixture": (labels, mixture, none or ("no calls" if mixture is None else "")),
        "calls": (labels, calls, no_calls),
        "probability": (labels, of["own"].astype(float), none or ("" if is_own else NOT_A_PROBABILITY)),
        "free": (labels, calls, no_calls or ("has cancer" if labels.any() else "")),
        "glands": (labels, None if calls is None else calls[glands], no_calls or _no_glands(glands)),
        "verdict": (labels, said, none or ("" if said else "no verdict")),
    }
    results = {"n_spots": (float(len(known)), ""), "prevalence": (np.nan if none else float(labels.mean()), "")}
    for metric in sorted(METRICS, key=lambda metric: list(given).index(metric.needs)):
        labels_of, values, note = given[metric.needs]
        note = note or ("" if metric.needs in ONE_CLASS else _one_class(labels))
        results[metric.name] = (np.nan, note) if note else (float(metric.compute(labels_of, values)), "")
    return results


def _one_class(labels: np.ndarray) -> str:
    if labels.any() and not labels.all():
        return ""
    return f"one class only ({'all' if labels.all() else 'no'} spots cancer)"


def _glands(words) -> np.ndarray:
    return np.array([isinstance(word, str) and GLANDS.search(word) is not None for word in words], dtype=bool)


def _no_glands(glands: np.ndarray) -> str:
    return "" if glands.any() else "no spot labelled as normal glands"


def study_table(
    study: str,
    runs: list[dict],
    calls: list,
    labels: dict,
    patients: dict,
    verdicts: list,
    crops: dict | None = None,
    trainings: dict | None = None,
    yardsticks: dict | None = None,
):
    """The metrics of every run on every section, in long form: one row per metric.

    Parameters
    ----------
    runs : task, fold, encoder, method, variant, regime, reference (the normal one, or ""), seed of each run
    calls : for each run its table (section, spot, score, probability, call, call_mixture)
    labels : section id -> label table; sections without one are listed with a note
    patients : section id -> patient
    verdicts : for each run section -> its verdict (`verdict.Verdict.as_dict`)
    crops : tumour-free crop -> why it is not judged, or ""; a crop has the metrics of a section without cancer alone
    trainings : (task, fold, encoder, variant, seed) -> stages whose loss training has not lowered, in words
        (`losses.unmoved_text`)
    yardsticks : section id -> its table (spot, library_size, darkness); crops and sections without one have no `RHOS`
    """
    import pandas as pd

    crops, trainings, yardsticks = crops or {}, trainings or {}, yardsticks or {}

    rows = []
    for run, table, said in zip(runs, calls, verdicts, strict=True):
        for section, group in table.groupby("section", sort=False):
            found = _section_metrics(
                group, labels.get(section), said[section]["verdict"], run["regime"] in PROBABILITIES
            )
            if section in crops:
                found = _of_crop(found, crops[section])
            elif section in yardsticks:
                found |= rhos(group, yardsticks[section])
            place = {**run, "section": section, "patient": patients[section]}
            place["unmoved"] = trainings.get(tuple(run[name] for name in RUN), "")
            rows += [
                place | {"metric": metric, "value": value, "note": note} for metric, (value, note) in found.items()
            ]
    columns = [
        "task", "fold", "encoder", "section", "patient", "method", "variant", "regime", "reference", "seed", "metric",
        "value", "note", "unmoved",
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns)
    frame.insert(0, "study", study)
    return frame


def rhos(scored, yardsticks) -> dict[str, tuple[float, str]]:
    """The rank correlations (Spearman) of the scores of a section with library size and darkness: value and note.

    Parameters
    ----------
    scored : frame (spot, score)
    yardsticks : frame (spot, library_size, darkness) of at least these spots
    """
    from scipy.stats import spearmanr

    own = yardsticks.set_index("spot").loc[scored["spot"]]
    scores, found = scored["score"].to_numpy(dtype=float), {}
    for metric, column in RHOS.items():
        values = own[column].to_numpy(dtype=float)
        if np.isnan(values).any():
            found[metric] = (np.nan, "no image")
        elif np.ptp(values) == 0 or np.ptp(scores) == 0:
            found[metric] = (np.nan, "all spots alike")
        else:
            found[metric] = (float(spearmanr(scores, values).statistic), "")
    return found


def reliability_table(runs: list[dict], calls: list, labels: dict):
    """The reliability curve of every task, encoder and variant, with labelled spots pooled over sections and seeds.

    Variants whose scores are not probabilities (see `PROBABILITIES`; any score outside [0, 1]) are left out, and so are
    controls other than `random`: the oracle is correct by definition.

    Parameters
    ----------
    runs, calls, labels : as for `study_table`

    Returns
    -------
    frame of task, encoder, variant, bin (1 to 10), mean_score, share (of cancer; both NaN in an empty bin), spots
    """
    import pandas as pd

    pools: dict[tuple, list] = {}
    for run, table in zip(runs, calls, strict=True):
        if run["regime"] not in PROBABILITIES or (run["regime"] == "control" and run["method"] != "random"):
            continue
        for section, group in table.groupby("section", sort=False):
            if section in labels:
                pair = _truth(group, labels[section]), _as_probability(group)
                pools.setdefault((run["task"], run["encoder"], run["variant"]), []).append(pair)
    parts = []
    for (task, encoder, variant), pairs in pools.items():
        truth, scores = (np.concatenate(column) for column in zip(*pairs, strict=True))
        known = ~np.isnan(truth)
        if not (known.any() and _within_unit(scores)):
            continue
        mean_score, share, spots = reliability(truth[known].astype(bool), scores[known])
        names = {"task": task, "encoder": encoder, "variant": variant, "bin": range(1, BINS + 1)}
        parts.append(pd.DataFrame(names | {"mean_score": mean_score, "share": share, "spots": spots}))
    columns = ["task", "encoder", "variant", "bin", "mean_score", "share", "spots"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _section_metrics(group, labels, said: str, probability: bool) -> dict[str, tuple[float, str]]:
    if labels is None:
        return _without_value("not labelled") | {"n_spots": (float(len(group)), "")}
    likely = group["probability"].to_numpy(dtype=float)
    return evaluate(
        _truth(group, labels),
        group["score"].to_numpy(),
        group["call_mixture"].to_numpy(),
        probability,
        calls=group["call"].to_numpy(),
        likely=None if np.isnan(likely).all() else likely,
        words=labels.set_index("spot")["region"].reindex(group["spot"]).to_numpy(),
        said=said,
    )


def _of_crop(found: dict, reason: str) -> dict[str, tuple[float, str]]:
    """The metrics that a crop has, without values if it is too small (`reason`)."""
    apt = {metric.name for metric in METRICS if metric.needs in ONE_CLASS}
    judged = {name: (np.nan, reason) if reason else value for name, value in found.items() if name in apt}
    return {name: found[name] for name in FACTS} | judged


def _as_probability(group) -> np.ndarray:
    """The probability of the spots, or their scores where there is none."""
    own = group["probability"].to_numpy(dtype=float)
    return group["score"].to_numpy(dtype=float) if np.isnan(own).all() else own


def _without_value(note: str) -> dict[str, tuple[float, str]]:
    return {metric.name: (np.nan, note) for metric in METRICS}


def _truth(group, labels) -> np.ndarray:
    """The labels of the scored spots of a section, NaN = unknown, or `taught`."""
    truth = labels.set_index("spot")["label"].astype(float)
    missing = set(group.spot) - set(truth.index)
    if missing:
        raise ValueError(f"labels lack {len(missing)} scored spots")
    return np.where(taught(group), np.nan, truth.loc[group.spot].to_numpy())


def _within_unit(scores) -> bool:
    return bool(np.min(scores) >= 0 and np.max(scores) <= 1)
