"""The data of a section for the figures: positions, labels, severity of regions, expression of some genes, scores."""

from pathlib import Path

import numpy as np

from ctrflow.results import seeds
from ctrflow.results.scores import judged
from ctrflow.sections import labels
from ctrflow.tsv import read_rows, require_none

GROUPS = ("invasive", "in_situ", "normal", "edge")
COLUMNS = ("word", "group", "source", "cohort")
DEPTH = 10_000  # counts a spot is scaled to (SpaCRD S4.2)


def section(spots, genes: list[str], words, table=None, patient: str = "", thumbnail=None, scale: float = 0.0) -> dict:
    """The data that do not depend on a method.

    Parameters
    ----------
    spots : AnnData as in spots.h5ad, with counts
    genes : the genes to keep
    words : as returned by `read_severity`
    table : the section's label table (spot, label, region), or None
    patient : "" if unknown; the section then counts as its own patient
    thumbnail, scale : as returned by `image.section_thumbnail`

    Returns
    -------
    dict(section, patient, centres_px (n x 2), spot_px, pitch_px, um_per_px, thumbnail, thumbnail_scale, label ((n,) 1,
    0, NaN; None without labels), severity ((n,) a group or ""; None without labels), expression (frame spots x those
    of the genes that are measured, log-normalised))
    """
    facts = spots.uns["section"]
    centres_px = np.asarray(spots.obsm["spatial"], dtype=float)
    label, severity = None, None
    if table is not None:
        table = table.set_index("spot").loc[spots.obs_names]
        label = table["label"].to_numpy(dtype=float)
        severity = _severity(table["region"].fillna(""), words, str(facts.get("cohort", "")))
    return {
        "section": str(facts["section"]),
        "patient": patient or str(facts["section"]),
        "centres_px": centres_px,
        "spot_px": float(facts["spot_um"]) / float(facts["um_per_px"]),
        "pitch_px": pitch_px(centres_px),
        "um_per_px": float(facts["um_per_px"]),
        "thumbnail": thumbnail,
        "thumbnail_scale": scale,
        "label": label,
        "severity": severity,
        "expression": expression(spots, genes),
    }


def scored(facts: dict, runs: list[dict], tables: list, evidence: list, spots) -> dict:
    """Add the results of a section's runs: `scores` and `calls` (frames spots x runs), `thresholds` (run -> fit).

    Scores are means over seeds, and calls are made on the mean; for the parameters see `seeds.on_section`.
    """
    found = seeds.on_section(runs, tables, evidence, spots)
    if facts["label"] is not None:
        own = [table[table["section"] == facts["section"]] for table in tables]
        facts = facts | {"label": judged(facts["label"], spots.obs_names, own)}
    return facts | {"scores": found.scores, "calls": found.calls, "thresholds": found.thresholds}


def read_severity(path: str | Path) -> dict[str, dict]:
    """Read the severity of the regions that words describe: columns word, group, source and, optionally, cohort.

    Returns
    -------
    cohort in lower case ("" for all) -> word -> group, one of `GROUPS`.

    Raises
    ------
    InputError
        listing all problems with file, row and cure.
    """
    problems: list[str] = []
    words: dict[str, dict] = {}
    for where, row in read_rows(Path(path), COLUMNS, COLUMNS[:3], problems):
        if row["group"] not in GROUPS:
            problems.append(f"{where}, column group: '{row['group']}'; valid: {', '.join(GROUPS)}")
        of_cohort = words.setdefault(row["cohort"].casefold(), {})
        if of_cohort.setdefault(row["word"], row["group"]) != row["group"]:
            problems.append(f"{where}, column word: '{row['word']}' is in two groups; keep one row")
    require_none(problems, "the table of severity")
    return words


def pitch_px(centres_px) -> float:
    """The distance between neighbouring spots, the median over spots, in px; 1 for a single spot."""
    from scipy.spatial import cKDTree

    centres_px = np.unique(centres_px, axis=0)
    if len(centres_px) < 2:
        return 1.0
    return float(np.median(cKDTree(centres_px).query(centres_px, k=2)[0][:, 1]))


def expression(spots, genes: list[str]):
    """Log-normalised expression, ln(1 + counts of 10,000 of a spot), of those of the genes that a section measures."""
    import pandas as pd

    measured = [gene for gene in dict.fromkeys(genes) if gene in spots.var_names]
    counts = np.asarray(spots.X.sum(axis=1), dtype=float).ravel()
    columns = spots.X[:, spots.var_names.get_indexer(measured)]
    columns = columns.toarray() if hasattr(columns, "toarray") else np.asarray(columns)
    values = np.log1p(columns * (DEPTH / np.maximum(counts, 1.0))[:, None])
    return pd.DataFrame(values, index=spots.obs_names, columns=measured)


def _severity(region, words: dict[str, dict], cohort: str) -> np.ndarray:
    """The group of each spot's word, "" if it has none; a row for the section's cohort overrides one for all."""
    regions = region.unique()
    groups = labels.meanings(regions, words.get("", {}))
    if cohort:
        own = labels.meanings(regions, words.get(cohort.casefold(), {}))
        groups |= {word: group for word, group in own.items() if group}
    return region.map({word: group or "" for word, group in groups.items()}).to_numpy(str)
