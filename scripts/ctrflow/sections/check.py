"""Check an ingested section: the fit of its image, its counts, and the paper's numbers."""

import logging

import numpy as np

from ctrflow.findings import Finding
from ctrflow.sections.placement import check_placement

logger = logging.getLogger("ctrflow")

PAPER, TABLE = "SpaCRD", "Table S1"
MAX_SHARE_OFF = 0.005  # the table prints three digits


def check_section(spots, labels=None, published=None, vendor_image: str = "") -> dict:
    """Check a section, log the findings (warnings and problems as warnings), and return them.

    Parameters
    ----------
    spots
        AnnData as in spots.h5ad.
    labels
        Frame as in labels.tsv, or None. Only the share of cancer is returned.
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
    facts = {key: section[key] for key in ("section", "platform")}
    facts |= {key: round(float(section[key]), 5) for key in ("um_per_px", "spot_um")}
    facts |= _counted(spots) | _labelled(labels)
    findings = [*check_placement(spots, vendor_image), *_check_counts(facts), *_check_published(facts, published)]
    for finding in findings:
        level = logging.INFO if finding.level == "ok" else logging.WARNING
        logger.log(level, "%s: %s: %s: %s", facts["section"], finding.level, finding.check, finding.message)
    lines = [{"level": one.level, "what": one.check, "message": one.message, "values": one.values} for one in findings]
    return facts | {"findings": lines}


def concerns(result: dict) -> list[str]:
    """The warnings and problems among the findings of `check_section`, each as one line."""
    return [f"{finding['level']}: {finding['message']}" for finding in result["findings"] if finding["level"] != "ok"]


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


def _check_counts(facts: dict) -> list[Finding]:
    numbers = (
        f"{facts['spots']:,} spots, {facts['genes']:,} genes; in the median spot {facts['median_counts']:g} counts of "
        f"{facts['median_genes']:g} genes"
    )
    if not facts["empty_share"]:
        return [Finding("ok", "counts", numbers)]
    empty = round(facts["empty_share"] * facts["spots"])
    return [
        Finding(
            "warning" if facts["empty_share"] > 0.05 else "ok",
            "counts",
            f"{numbers}; {empty:,} spots ({100 * facts['empty_share']:.1f} %) have no count at all"
            + ("; check that the matrix is that of the spots in the tissue" if facts["empty_share"] > 0.05 else ""),
        )
    ]


def _check_published(facts: dict, published) -> list[Finding]:
    """Compare spots and cancer share with the paper's table; no findings for a section that is not in it."""
    if published is None:
        return []
    mine = (published["paper"] == PAPER) & (published["table"] == TABLE) & (published["dataset"] == facts["section"])
    numbers = published[mine].set_index("metric")["mean"].astype(float)
    findings = []
    if "n_spots" in numbers.index:
        findings.append(_compare_spots(facts["spots"], int(numbers["n_spots"])))
    if "cancer_ratio" in numbers.index:
        findings.append(_compare_share(facts, float(numbers["cancer_ratio"])))
    return findings


def _compare_spots(ours: int, paper: int) -> Finding:
    values = {"spots": ours, "published": paper}
    if ours == paper:
        return Finding("ok", "published_spots", f"{ours:,} spots, as in {PAPER}'s {TABLE}", values)
    return Finding(
        "warning",
        "published_spots",
        f"{ours:,} spots here, {paper:,} in {PAPER}'s {TABLE}; check that this is the section and version of the paper",
        values,
    )


def _compare_share(facts: dict, paper: float) -> Finding:
    ours, known = facts["cancer_share"], facts["labelled"]
    values = {"cancer_share": ours, "published": paper}
    if ours is None:
        text = (
            f"no labels here, so the cancer share of {PAPER}'s {TABLE}, {paper:.3f}, cannot be checked; "
            "name them in column `labels` of the section sheet if you have them"
        )
        return Finding("warning", "published_cancer_share", text, values)
    share = f"{round(ours * known):,} of {known:,} labelled spots are cancer, {ours:.3f}"
    if abs(ours - paper) <= MAX_SHARE_OFF + 1e-9:
        return Finding("ok", "published_cancer_share", f"{share}; {paper:.3f} in {PAPER}'s {TABLE}", values)
    return Finding(
        "warning",
        "published_cancer_share",
        f"{share} here, {paper:.3f} in {PAPER}'s {TABLE}; the labels or their words differ from the paper's, so expect "
        "other figures",
        values,
    )
