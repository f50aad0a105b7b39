"""The tumour-free crop of a section: the spots known to be tumour-free, as a section of its own."""

from ctrflow.errors import InputError

CROP = ".tumour_free"  # how the id of a crop ends
LEAST_LEFT = 20  # spots: with fewer there are hardly neighbours, and no distribution of scores to find a threshold in
# A map of fewer spots, or of less of a section, is made but not judged: a section that is nearly all tumour leaves a
# seam around it, which says little about tissue without any.
LEAST_SPOTS = 100
LEAST_SHARE = 0.3


def tumour_free(spots, labels, name: str) -> tuple:
    """The spots of a section that are labelled 0; spots without a label are left out too.

    Parameters
    ----------
    spots : AnnData as in spots.h5ad
    labels : frame as in labels.tsv
    name : id of the crop

    Returns
    -------
    (spots, labels, facts): as of any section, spots in their order, `uns["section"]` with the crop's id; facts for
    crop.json: section, crop_of, spots, share (of the section's spots), judged (bool), reason ("" if judged)

    Raises
    ------
    InputError
        if fewer than `LEAST_LEFT` spots are left.
    """
    parent = spots.uns["section"]["section"]
    labels = labels.set_index("spot").loc[spots.obs_names]
    kept = (labels["label"] == 0).to_numpy(bool)
    count = int(kept.sum())
    if count < LEAST_LEFT:
        raise InputError(
            f"section {parent}: {count} spots are labelled 0, but a tumour-free crop needs {LEAST_LEFT}; leave the "
            "section out of `target` of the tasks with `crop`, and score it in a task without"
        )
    crop = spots[kept].copy()
    crop.uns["section"] = dict(spots.uns["section"]) | {"section": name}
    own = labels[kept].rename_axis("spot").reset_index().astype({"label": "Int64"})
    reason = why_not_judged(count, spots.n_obs)
    facts = {"section": name, "crop_of": parent, "spots": count, "share": round(count / spots.n_obs, 5)}
    return crop, own[["spot", "label", "region"]], facts | {"judged": not reason, "reason": reason}


def why_not_judged(spots: int, of: int) -> str:
    """Why a crop of so many of a section's spots is too small to be judged, "" if it is not."""
    if spots < LEAST_SPOTS:
        return f"{spots} spots left, fewer than {LEAST_SPOTS}"
    if spots < LEAST_SHARE * of:
        return f"{spots} of {of} spots left, less than {100 * LEAST_SHARE:g} %"
    return ""


def same_spots(features, spots):
    """The image features of a crop's spots, from those of its section.

    Parameters
    ----------
    features : AnnData as in the embedding of the section
    spots : AnnData of the crop
    """
    missing = spots.obs_names.difference(features.obs_names)
    if len(missing):
        raise InputError(
            f"section {spots.uns['section']['section']}: the embedding of its section lacks {len(missing)} of its "
            "spots; delete results/embeddings and rerun"
        )
    return features[spots.obs_names].copy()
