"""A section after ingest: does its image fit, what does it hold, and is it what the paper says it is."""

import logging
from dataclasses import asdict

import numpy as np

from ctrflow.sections.placement import Finding, check_placement

logger = logging.getLogger("ctrflow")

PAPER, TABLE = "SpaCRD", "Table S1"
MAX_SHARE_OFF = 0.005  # the table prints three digits


def check_section(spots, labels=None, published=None, vendor_image: str = "") -> dict:
    """Examine a section, log what was found (warnings and problems as warnings), and return it.

    Parameters
    ----------
    spots
        AnnData as in spots.h5ad.
    labels
        Frame as in labels.tsv, or None. Only the share of cancer leaves this function.
    published
        Frame of the papers' numbers (config/published.tsv), or None.
    vendor_image
        Path of Space Ranger's own reduced image, or "".

    Returns
    -------
    dict, ready for JSON: section, platform, um_per_px, spot_um, spots, genes, median_counts and median_genes (per
    spot), empty_share (spots without counts), labelled (spots with a known label) and cancer_share (of them; None
    without labels), findings (list of level, what, message, values).

    Raises
    ------
    InputError
        if an image cannot be read.
    """
    section = spots.uns["section"]
    told = {key: section[key] for key in ("section", "platform")}
    told |= {key: round(float(section[key]), 5) for key in ("um_per_px", "spot_um")}
    told |= _counted(spots) | _labelled(labels)
    found = [*check_placement(spots, vendor_image), *_check_counts(told), *_check_published(told, published)]
    for finding in found:
        level = logging.INFO if finding.level == "ok" else logging.WARNING
        logger.log(level, "%s: %s: %s: %s", told["section"], finding.level, finding.what, finding.message)
    return told | {"findings": [asdict(finding) for finding in found]}


def concerns(told: dict) -> list[str]:
    """The warnings and problems among the findings of `check_section`, each as one line."""
    return [f"{finding['level']}: {finding['message']}" for finding in told["findings"] if finding["level"] != "ok"]


def _counted(spots) -> dict:
    total = np.asarray(spots.X.sum(axis=1)).ravel()
    genes = np.asarray((spots.X > 0).sum(axis=1)).ravel()
    return {
        "spots": int(spots.n_obs),
        "genes": int(spots.n_vars),
        "median_counts": float(np.median(total)),
        "median_genes": float(np.median(genes)),
        "empty_share": round(float((total == 0).mean()), 5),
    }


def _labelled(labels) -> dict:
    if labels is None:
        return {"labelled": 0, "cancer_share": None}
    known = labels["label"].dropna()
    return {"labelled": len(known), "cancer_share": round(float(known.mean()), 5) if len(known) else None}


def _check_counts(told: dict) -> list[Finding]:
    numbers = (
        f"{told['spots']:,} spots, {told['genes']:,} genes; in the median spot {told['median_counts']:g} counts of "
        f"{told['median_genes']:g} genes"
    )
    if not told["empty_share"]:
        return [Finding("ok", "counts", numbers)]
    empty = round(told["empty_share"] * told["spots"])
    return [
        Finding(
            "warning" if told["empty_share"] > 0.05 else "ok",
            "counts",
            f"{numbers}; {empty:,} spots ({100 * told['empty_share']:.1f} %) have no count at all"
            + ("; check that the matrix is that of the spots in the tissue" if told["empty_share"] > 0.05 else ""),
        )
    ]


def _check_published(told: dict, published) -> list[Finding]:
    """Spots and cancer share against the paper's table; nothing for a section that is not in it."""
    if published is None:
        return []
    mine = (published["paper"] == PAPER) & (published["table"] == TABLE) & (published["dataset"] == told["section"])
    numbers = published[mine].set_index("metric")["mean"].astype(float)
    found = []
    if "n_spots" in numbers.index:
        found.append(_compare_spots(told["spots"], int(numbers["n_spots"])))
    if "cancer_ratio" in numbers.index:
        found.append(_compare_share(told, float(numbers["cancer_ratio"])))
    return found


def _compare_spots(here: int, paper: int) -> Finding:
    values = {"spots": here, "published": paper}
    if here == paper:
        return Finding("ok", "published_spots", f"{here:,} spots, as in {PAPER}'s {TABLE}", values)
    return Finding(
        "warning",
        "published_spots",
        f"{here:,} spots here, {paper:,} in {PAPER}'s {TABLE}; check that this is the section and version of the paper",
        values,
    )


def _compare_share(told: dict, paper: float) -> Finding:
    here, known = told["cancer_share"], told["labelled"]
    values = {"cancer_share": here, "published": paper}
    if here is None:
        text = (
            f"no labels here, so the cancer share of {PAPER}'s {TABLE}, {paper:.3f}, cannot be checked; "
            "name them in column `labels` of the section sheet if you have them"
        )
        return Finding("warning", "published_cancer_share", text, values)
    of = f"{round(here * known):,} of {known:,} labelled spots are cancer, {here:.3f}"
    if abs(here - paper) <= MAX_SHARE_OFF + 1e-9:
        return Finding("ok", "published_cancer_share", f"{of}; {paper:.3f} in {PAPER}'s {TABLE}", values)
    return Finding(
        "warning",
        "published_cancer_share",
        f"{of} here, {paper:.3f} in {PAPER}'s {TABLE}; the labels or their words differ from the paper's, so expect "
        "other figures",
        values,
    )
