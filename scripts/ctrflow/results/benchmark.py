"""The tables of a benchmark: means by section and by method, ranks, bootstrap intervals and paired tests."""

import zlib
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np

from ctrflow.results import marks, weighted
from ctrflow.results.metrics import METRICS, RHOS, Metric
from ctrflow.results.scores import taught

BOOTSTRAPPED = tuple(metric.name for metric in METRICS if metric.weighted)
# methods are ranked together if they had the same information
LEARNED, NORMAL_BY_LABEL, UNLABELLED = "learned from labels", "knew normal spots by their labels", "saw no label"
TAUGHT = "taught by drawings in the target"
GROUPS = (LEARNED, NORMAL_BY_LABEL, UNLABELLED, TAUGHT)
CONTROL = "control"
DRAWS = 1000
SEED = 42
LOW, HIGH = 2.5, 97.5  # percent: a 95 % interval
MIN_SECTIONS = 6  # n sections of the same sign give p = 2 / 2^n: 0.03 for 6, 0.06 for 5
DECIMALS = 12  # float sums that should be equal differ in the 16th
BLOCK = 2**17  # spots x draws at a time, 1 MB: fits into the processor's cache
NOT_INDEPENDENT = "sections of one patient are not independent: p counts sections, low and high patients"
TABLES = ("sections", "methods", "pairs")

SECTION_COLUMNS = [
    "task", "encoder", "section", "patient", "variant", "method", "regime", "reference", "metric",
    "seeds", "mean", "sd", "note",
]  # fmt: skip
METHOD_COLUMNS = [
    "task", "encoder", "variant", "method", "regime", "reference", "metric", "sections", "patients", "seeds",
    "mean", "sd", "low", "high", "mean_rank", "group", "group_size", "note", *RHOS,
    "marks",
]  # fmt: skip
PAIR_COLUMNS = [
    "task", "encoder", "metric", "better", "better_group", "other", "other_group", "sections", "patients",
    "mean_difference", "sections_better", "statistic", "p", "p_holm", "low", "high", "note",
]  # fmt: skip


def tables(metrics, runs: list[dict], calls, labels: dict) -> dict:
    """The tables `sections`, `methods` and `pairs` of a study; sections without labels are left out.

    The 95 % intervals are from a bootstrap of 1,000 draws (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapter 13: percentiles): patients are drawn with replacement, then the labelled spots of each of their sections.
    All variants and seeds use the same draws, so that differences are paired. Calls are not recomputed.

    Parameters
    ----------
    metrics : frame of `metrics.study_table`
    runs : task, encoder, variant of each run
    calls : for each run its table (section, spot, score, call_mixture); read once, in order
    labels : section id -> label table

    Returns
    -------
    dict of three frames with the columns `SECTION_COLUMNS`, `METHOD_COLUMNS` and `PAIR_COLUMNS`, in the study's order.
    """
    import pandas as pd

    rows, marked, rhos = _labelled(metrics), marks.joined(metrics), marks.mean_rhos(metrics)
    resampled = resample(runs, calls, labels)
    methods, pairs = [], []
    for (task, encoder), of in rows.groupby(["task", "encoder"], sort=False):
        draws = {key[2:]: values for key, values in resampled.items() if key[:2] == (task, encoder)}
        names = {"task": task, "encoder": encoder}
        for line in _method_lines(of, draws):
            key = task, encoder, line["variant"]
            methods.append(names | line | rhos.get(key, {}) | {"marks": marked.get(key, "")})
        for metric in METRICS:
            if metric.paired:
                pairs += [names | {"metric": metric.name} | line for line in _pair_lines(of, metric, draws)]
    return {
        "sections": _section_lines(rows),
        "methods": pd.DataFrame(methods, columns=METHOD_COLUMNS),
        "pairs": pd.DataFrame(pairs, columns=PAIR_COLUMNS),
    }


def read_tables(folder: str | Path) -> dict:
    """Read the frames of `tables` from the files `{name}.tsv` in a folder."""
    from ctrflow import storage

    # ids of variants are text, even if they look like numbers
    text = dict.fromkeys(("better", "other"), str)
    return {name: storage.read_tsv(Path(folder) / f"{name}.tsv", converters=text) for name in TABLES}


def summary_table(metrics, task: str, encoder: str):
    """The overall results of one task and encoder, one row per variant, best AUC first.

    For each seed a metric is averaged over folds, then over the sections of a patient, then over patients; the table
    gives the mean of that over seeds and its population sd (ddof = 0, as in the papers; NaN for a single seed).
    Values that could not be computed (NaN) are left out.

    Returns
    -------
    frame, index variant, columns sections, patients, seeds (those with an AUC) and for each metric its mean
    (`auc`) and sd (`auc_sd`).
    """
    import pandas as pd

    rows = rows_of(metrics, task, encoder).dropna(subset=["value"])
    mean, sd = _over_seeds(rows)
    with_auc = rows[rows["metric"] == "auc"].groupby("variant", sort=False)
    table = pd.DataFrame(index=pd.Index(rows["variant"].unique(), name="variant"))
    for column, key in (("sections", "section"), ("patients", "patient"), ("seeds", "seed")):
        table[column] = with_auc[key].nunique().reindex(table.index, fill_value=0)
    for metric in METRICS:
        for column, of in ((metric.name, mean), (f"{metric.name}_sd", sd)):
            values = {variant: of.get((variant, metric.name), np.nan) for variant in table.index}
            table[column] = pd.Series(values, dtype=float)
    return table.sort_values("auc", ascending=False, kind="stable")


def section_table(metrics, task: str, encoder: str, metric: str):
    """One metric by section: frame with sections as rows and (variant, "mean" or "sd") as columns, over seeds."""
    import pandas as pd

    rows = rows_of(metrics, task, encoder)
    rows = rows[rows["metric"] == metric]
    seeds = rows.groupby(["section", "variant", "seed"], sort=False)["value"].mean().groupby(["section", "variant"])
    sections, variants = rows["section"].unique(), rows["variant"].unique()
    mean, sd = seeds.mean().unstack(), seeds.std(ddof=0).where(seeds.count() > 1).unstack()
    parts = {(variant, what): of[variant] for variant in variants for what, of in (("mean", mean), ("sd", sd))}
    return pd.DataFrame(parts).reindex(sections)


def prevalence(metrics, task: str, encoder: str) -> float:
    """The share of cancer spots in the sections with an AUC, averaged like metrics: the chance level of AP."""
    rows = rows_of(metrics, task, encoder)
    evaluated = rows[(rows["metric"] == "auc") & rows["value"].notna()]["section"].unique()
    rows = rows[(rows["metric"] == "prevalence") & rows["section"].isin(evaluated)]
    return float(rows.groupby(["patient", "section"])["value"].mean().groupby("patient").mean().mean())


def comparison(metrics, task: str, encoder: str, controls=()) -> dict | None:
    """The best method by mean AUC and the next one; controls and methods that lack a section are left out.

    Returns
    -------
    dict(best, auc, second, second_auc, difference, sd, better, patients): `sd` is the larger sd over seeds of the two
    (NaN with one seed each), `better` counts the patients with a higher AUC of the best; second and what depends on it
    are None for a single method. None without an AUC.
    """
    table = summary_table(metrics, task, encoder).dropna(subset=["auc"])
    table = table[~table.index.isin(list(controls))]
    table = table[table["sections"] == table["sections"].max()]
    if table.empty:
        return None
    best = table.index[0]
    result = {"best": best, "auc": float(table["auc"].iloc[0]), "patients": int(table["patients"].iloc[0])}
    if len(table) == 1:
        return result | {"second": None, "second_auc": None, "difference": None, "sd": None, "better": None}
    second = table.index[1]
    rows = rows_of(metrics, task, encoder)
    rows = rows[rows["metric"] == "auc"].groupby(["variant", "patient", "section"])["value"].mean()
    patients = rows.groupby(["variant", "patient"]).mean()
    return result | {
        "second": second,
        "second_auc": float(table["auc"].iloc[1]),
        "difference": float(table["auc"].iloc[0] - table["auc"].iloc[1]),
        "sd": float(table["auc_sd"].iloc[:2].max()),
        "better": int((patients[best] > patients[second]).sum()),
    }


def rows_of(metrics, task, encoder):
    """The rows of one task and encoder; a section without a patient counts as its own patient."""
    return _filled(metrics[(metrics["task"] == task) & (metrics["encoder"] == encoder)])


def group(regime: str, reference: str) -> str:
    """The group in which a variant is ranked; a normal reference from labelled sections has used their labels, and what is
    drawn in a target are labels of its own."""
    if regime == "control":
        return CONTROL
    if reference == "drawn":
        return TAUGHT
    if regime == "labelled_source":
        return LEARNED
    return NORMAL_BY_LABEL if reference == "source_negatives" else UNLABELLED


def holm(p) -> np.ndarray:
    """Holm's adjusted p values (Scandinavian Journal of Statistics 6:65, 1979), in the order of `p`."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def spot_weights(section: str, spots: int, draws: int = DRAWS):
    """How often each draw takes each spot of a section, in blocks (spots, draws of the block), float.

    Every draw takes as many spots as the section has. Draws depend only on the section's name and size.
    """
    rng = np.random.default_rng([SEED, zlib.crc32(section.encode())])
    width = max(16, BLOCK // spots)
    for start in range(0, draws, width):
        many = min(width, draws - start)
        taken = rng.integers(spots, size=(many, spots)) * many + np.arange(many)[:, None]
        yield np.bincount(taken.ravel(), minlength=spots * many).reshape(spots, many).astype(float)


def patient_draws(patients: int, draws: int = DRAWS) -> np.ndarray:
    """The patients of each draw, drawn with replacement: (draws, patients), numbers from 0."""
    return np.random.default_rng(SEED).integers(patients, size=(draws, patients))


def weighted_metrics(ranking: weighted.Ranking, weights: np.ndarray) -> np.ndarray:
    """The metrics in `BOOTSTRAPPED`, (metrics, draws); NaN if a draw has one class only.

    Parameters
    ----------
    ranking : of a run on a section, see `weighted.rank_spots`
    weights : (spots, draws) how often each draw takes each spot
    """
    drawn = weighted.Drawn(ranking, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.array([metric.weighted(drawn) for metric in METRICS if metric.weighted])
    return np.where((drawn.p > 0) & (drawn.n > 0), values, np.nan)


def resample(runs: list[dict], calls, labels: dict, draws: int = DRAWS) -> dict:
    """The bootstrap over spots of every section with both classes.

    Parameters
    ----------
    runs, calls, labels : as for `tables`

    Returns
    -------
    (task, encoder, variant, section) -> (metrics, draws): the metrics in `BOOTSTRAPPED`, mean over the variant's seeds.
    """
    known = {section: table[table["label"].notna()] for section, table in labels.items()}
    resampled = {}
    for section, scored in _by_section(runs, calls, known).items():
        truth = known[section]["label"].to_numpy(dtype=float) == 1
        used = np.isfinite([scores for _, scores, _ in scored]).any(axis=0)
        if not (truth[used].any() and (~truth[used]).any()):
            continue
        means = _section_draws(section, truth[used], [(key, s[used], c[used]) for key, s, c in scored], draws)
        resampled |= {(*key, section): values for key, values in means.items()}
    return resampled


def _by_section(runs, calls, known: dict) -> dict[str, list]:
    """Section -> (key, scores, calls) of every run on it, in the order of the labelled spots; NaN = not scored."""
    import pandas as pd

    found: dict[str, list] = {}
    spots = {section: pd.Index(table["spot"]) for section, table in known.items()}
    for run, table in zip(runs, calls, strict=True):
        key = (run["task"], run["encoder"], run["variant"])
        for section, of in table.groupby("section", sort=False):
            if section not in spots:
                continue
            place = spots[section].get_indexer(of["spot"])
            is_labelled = (place >= 0) & ~taught(of)
            scores, called = np.full(len(spots[section]), np.nan), np.zeros(len(spots[section]), dtype=bool)
            scores[place[is_labelled]] = of["score"].to_numpy(dtype=float)[is_labelled]
            called[place[is_labelled]] = of["call_mixture"].to_numpy()[is_labelled].astype(bool)
            found.setdefault(section, []).append((key, scores, called))
    return found


def _section_draws(section: str, truth, scored: list[tuple], draws: int) -> dict[tuple, np.ndarray]:
    """Key -> (metrics, draws), the mean over the runs of that key."""
    rankings = [(key, weighted.rank_spots(truth, scores, called)) for key, scores, called in scored]
    runs = Counter(key for key, _ in rankings)
    means = {key: np.zeros((len(BOOTSTRAPPED), draws)) for key in runs}
    start = 0
    for weights in spot_weights(section, len(truth), draws):
        block = slice(start, start := start + weights.shape[1])
        for key, ranking in rankings:
            means[key][:, block] += weighted_metrics(ranking, weights) / runs[key]
    return means


def patient_means(values: np.ndarray, patients) -> np.ndarray:
    """The mean over drawn patients of the mean over each one's sections, for every draw: (draws,).

    Parameters
    ----------
    values : (draws, sections), each with its own draw of spots; NaN is left out
    patients : of each section
    """
    names = list(dict.fromkeys(patients))
    patients = np.asarray(patients)
    means = np.column_stack([_mean(values[:, patients == name]) for name in names])
    taken, row = patient_draws(len(names), len(values)), np.arange(len(values))
    # a patient drawn twice has its spots resampled again: they are taken from another draw
    return _mean(np.column_stack([means[(row + place) % len(row), taken[:, place]] for place in range(taken.shape[1])]))


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean of each row, ignoring NaN; NaN for a row of NaN."""
    counts = np.isfinite(values).sum(axis=1)
    return np.where(counts > 0, np.nansum(values, axis=1) / np.maximum(counts, 1), np.nan)


def _interval(values: np.ndarray) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.percentile(values, [LOW, HIGH])
    return float(low), float(high)


def _filled(metrics):
    """A section without a patient counts as its own patient; a row without a variant has the method as variant."""
    return metrics.assign(
        patient=metrics["patient"].where(metrics["patient"].notna() & (metrics["patient"] != ""), metrics["section"]),
        variant=metrics["variant"].where(metrics["variant"].notna() & (metrics["variant"] != ""), metrics["method"]),
        value=metrics["value"].astype(float),
    )


def _labelled(metrics):
    """The rows of sections with a label, with the group of each variant."""
    rows = _filled(metrics)
    rows = rows.assign(**{name: rows[name].astype(object).fillna("") for name in ("reference", "note")})
    labelled = rows[(rows["metric"] == "prevalence") & rows["value"].notna()]["section"].unique()
    rows = rows[rows["section"].isin(labelled)]
    groups = [group(*of) for of in zip(rows["regime"], rows["reference"], strict=True)]
    return rows.assign(group=np.array(groups, dtype=object))


def _over_seeds(rows):
    """Mean and sd (population) over seeds by (variant, metric), after averaging folds, sections and patients."""
    keys = ["variant", "metric", "seed", "patient", "section"]
    values = rows.groupby(keys, sort=False)["value"].mean()
    while keys[-1] != "seed":
        keys.pop()
        values = values.groupby(keys, sort=False).mean()
    seeds = values.groupby(["variant", "metric"], sort=False)
    return seeds.mean(), seeds.std(ddof=0).where(seeds.size() > 1)


def _section_lines(rows):
    """One row per task, encoder, section, variant and metric."""
    import pandas as pd

    if rows.empty:
        return pd.DataFrame(columns=SECTION_COLUMNS)
    keys = SECTION_COLUMNS[: SECTION_COLUMNS.index("metric") + 1]
    seeds = rows.groupby([*keys, "seed"], sort=False)["value"].mean().groupby(keys, sort=False)
    table = pd.DataFrame(
        {
            "seeds": seeds.count(),
            "mean": seeds.mean(),
            "sd": seeds.std(ddof=0).where(seeds.count() > 1),
            "note": rows.groupby(keys, sort=False)["note"].agg(_joined),
        }
    ).reset_index()
    order = [pd.factorize(table[name])[0] for name in ("metric", "variant", "section", "encoder", "task")]
    return table.iloc[np.lexsort(order)].reset_index(drop=True)[SECTION_COLUMNS]


def _method_lines(rows, draws: dict) -> list[dict]:
    """One row per variant and metric of one task and encoder."""
    lines = []
    present = rows.dropna(subset=["value"])
    mean, sd = _over_seeds(present)
    groups = rows.drop_duplicates("variant").set_index("variant")["group"]
    for ranked in METRICS:
        metric = ranked.name
        ranks, sizes = _ranks(_wide(rows, metric), groups, ranked.higher_is_better)
        for variant, of in rows[rows["metric"] == metric].groupby("variant", sort=False):
            computed = of.dropna(subset=["value"])
            patients = computed.drop_duplicates("section").set_index("section")["patient"]
            low, high = _method_interval(variant, metric, patients, draws)
            lines.append(
                of.iloc[0][["method", "regime", "reference", "group"]].to_dict()
                | {
                    "variant": variant,
                    "metric": metric,
                    "sections": len(patients),
                    "patients": patients.nunique(),
                    "seeds": computed["seed"].nunique(),
                    "mean": mean.get((variant, metric), np.nan),
                    "sd": sd.get((variant, metric), np.nan),
                    "low": low,
                    "high": high,
                    "mean_rank": ranks.get(variant, np.nan),
                    "group_size": sizes[groups[variant]],
                    "note": _joined([*_missing(of), *_about_interval(low, patients)]),
                }
            )
    order = {name: place for place, name in enumerate(rows["variant"].unique())}
    return sorted(lines, key=lambda line: order[line["variant"]])


def _wide(rows, metric: str):
    """A metric by section and variant, mean over folds and seeds; both in the study's order."""
    of = rows[rows["metric"] == metric]
    seeds = of.groupby(["section", "variant", "seed"], sort=False)["value"].mean()
    wide = seeds.groupby(["section", "variant"]).mean().unstack()
    return wide.reindex(index=of["section"].unique(), columns=of["variant"].unique())


def _ranks(wide, groups, higher_is_better: bool) -> tuple[dict, dict]:
    """Variant -> mean rank over sections within its group, 1 = best; group -> number of variants with the metric."""
    ranks, sizes = {}, {}
    wide = wide.round(DECIMALS).dropna(axis=1, how="all")
    for name in groups.unique():
        of = wide[[variant for variant in wide if groups[variant] == name]]
        sizes[name] = of.shape[1]
        if name != CONTROL:
            ranks |= of.rank(axis=1, ascending=not higher_is_better).mean().to_dict()
    return ranks, sizes


def _method_interval(variant: str, metric: str, patients, draws: dict) -> tuple[float, float]:
    if metric not in BOOTSTRAPPED or patients.empty:
        return np.nan, np.nan
    place = BOOTSTRAPPED.index(metric)
    values = np.column_stack([draws[variant, section][place] for section in patients.index])
    return _interval(patient_means(values, patients))


def _missing(of) -> list[str]:
    """Why values are missing: the reason, with the section unless all values are missing."""
    without = of[of["value"].isna()]
    if len(without) == len(of):
        return list(without["note"].unique())
    return [f"{section}: {_joined(lines['note'])}" for section, lines in without.groupby("section", sort=False)]


def _about_interval(low: float, patients) -> list[str]:
    if low != low or patients.nunique() > 1:
        return []
    return ["one patient: low and high come of its spots alone"]


def _pair_lines(rows, metric: Metric, draws: dict) -> list[dict]:
    """Every pair of variants of one task and encoder, the better one first."""
    wide = _wide(rows, metric.name)
    patients = rows.drop_duplicates("section").set_index("section")["patient"]
    groups = rows.drop_duplicates("variant").set_index("variant")["group"]
    lines = [
        _pair(one, two, wide, patients, groups, metric, draws)
        for one, two in combinations(wide, 2)
        if (wide[one] - wide[two]).notna().any()
    ]
    family = [line for line in lines if line["p"] == line["p"] and CONTROL not in _groups_of(line)]
    for line, adjusted in zip(family, holm([line["p"] for line in family]), strict=True):
        line["p_holm"] = float(adjusted)
    return lines


def _pair(one: str, two: str, wide, patients, groups, metric: Metric, draws: dict) -> dict:
    """One pair on the sections that both have; differences are positive if `better` is better."""
    sign = 1 if metric.higher_is_better else -1
    differences = (sign * (wide[one] - wide[two])).round(DECIMALS).dropna()
    patients = patients[differences.index]
    mean = float(differences.groupby(patients).mean().mean())
    if mean < 0:
        one, two, differences, mean = two, one, -differences, -mean
    statistic, p, note = _wilcoxon(differences.to_numpy())
    low = high = np.nan
    if metric.name in BOOTSTRAPPED:
        place = BOOTSTRAPPED.index(metric.name)
        values = [sign * (draws[one, section][place] - draws[two, section][place]) for section in differences.index]
        low, high = _interval(patient_means(np.column_stack(values), patients))
    line = {
        "better": one,
        "better_group": groups[one],
        "other": two,
        "other_group": groups[two],
        "sections": len(differences),
        "patients": patients.nunique(),
        "mean_difference": mean,
        "sections_better": int((differences > 0).sum()),
        "statistic": statistic,
        "p": p,
        "p_holm": np.nan,
        "low": low,
        "high": high,
    }
    shared = p == p and patients.nunique() < len(patients)
    notes = [_about_groups(line), note, NOT_INDEPENDENT if shared else "", *_about_interval(low, patients)]
    return line | {"note": _joined(notes)}


def _groups_of(line: dict) -> set[str]:
    return {line["better_group"], line["other_group"]}


def _about_groups(line: dict) -> str:
    if CONTROL in _groups_of(line):
        return "a control: no part of p_holm"
    apart = [name for name in GROUPS if name in _groups_of(line)]
    return f"not alike: {' against '.join(apart)}" if len(apart) > 1 else ""


def _wilcoxon(differences: np.ndarray) -> tuple[float, float, str]:
    """Two-sided paired signed-rank test (Wilcoxon, Biometrics Bulletin 1:80, 1945): statistic, p, note."""
    from scipy.stats import wilcoxon

    if len(differences) < MIN_SECTIONS:
        return np.nan, np.nan, f"fewer than {MIN_SECTIONS} sections: no test, p < 0.05 is out of reach"
    if not differences.any():
        return 0.0, 1.0, "no difference on any section"
    found = wilcoxon(differences)
    return float(found.statistic), float(found.pvalue), ""


def _joined(notes) -> str:
    return "; ".join(dict.fromkeys(note for note in notes if note))
