"""Patients of a training table that are left out in turn, with the tumour-free crops of their sections.

What is learned about scores (a level that tells tumour from none, a probability) is learned from patients that the
scores were not trained on, and never from a target.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ctrflow.sections.crop import CROP, why_not_judged


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A patient left out.

    patient : its id
    rest : training table of all other patients
    sections : the patient's sections and their crops as a target table, without labels
    rows : (spots of `sections`,) their rows in the training table
    crop : (spots of `sections`,) whether they are of a crop
    labels : (spots of `sections`,) 1 cancer, 0 other, NaN unknown
    """

    patient: str
    rest: object
    sections: object
    rows: np.ndarray
    crop: np.ndarray
    labels: np.ndarray


def held_out(train, usable=None) -> Iterator[HeldOut]:
    """Leave out the patients of a labelled training table, one at a time.

    A patient is skipped if the others have spots of one class only, or if it has none of the `usable` ones.

    Parameters
    ----------
    train : labelled training table of a fold
    usable : (spots,) bool, spots that can be scored, such as those of sections with a picture; None: all
    """
    labels = train.obs["label"].to_numpy(dtype=float)
    patients = train.obs["patient"].to_numpy()
    usable = np.ones(train.n_obs, dtype=bool) if usable is None else usable
    for patient in dict.fromkeys(patients):
        own, rest = np.flatnonzero((patients == patient) & usable), np.flatnonzero(patients != patient)
        if not len(own) or len(set(labels[rest][~np.isnan(labels[rest])])) < 2:
            continue
        rows, crop = _with_crops(train.obs["section"].to_numpy(), own, labels)
        table = _table(train, rows, crop)
        yield HeldOut(str(patient), train[rest].copy(), table, rows, crop, labels[rows])


def crop_rows(labels: np.ndarray) -> np.ndarray:
    """The rows of a section's tumour-free crop: those labelled 0; none if they are too few to be judged.

    Parameters
    ----------
    labels : (spots,) 1 cancer, 0 other, NaN unknown, of one section
    """
    rows = np.flatnonzero(labels == 0)
    cancer = (labels == 1).any()  # a section without cancer is its own crop
    return rows if cancer and not why_not_judged(len(rows), len(labels)) else rows[:0]


def _with_crops(sections: np.ndarray, own: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some rows, followed by those of their sections' crops; and which are the latter."""
    crops = []
    for name in dict.fromkeys(sections[own]):
        rows = own[sections[own] == name]
        crops.append(rows[crop_rows(labels[rows])])
    rows = np.concatenate([own, *crops])
    return rows, np.arange(len(rows)) >= len(own)


def _table(train, rows: np.ndarray, crop: np.ndarray):
    """Rows of a training table as a target table, in which crops are sections of their own.

    Image features of a section without a picture are 0: constant there, and so without effect once they are scaled.
    """
    import anndata
    import pandas as pd

    obs = train.obs.iloc[rows].drop(columns="label")
    names = zip(obs["section"], crop, strict=True)
    obs["section"] = [f"{name}{CROP}" if is_crop else str(name) for name, is_crop in names]
    obs.index = pd.Index(obs["section"] + "/" + obs["spot"].astype(str))
    obsm = {name: np.asarray(train.obsm[name])[rows] for name in train.obsm}
    if "image" in obsm:
        obsm["image"] = np.nan_to_num(obsm["image"], nan=0.0)
    return anndata.AnnData(
        train.X[rows],
        obs=obs,
        var=train.var,
        obsm=obsm,
        layers={name: train.layers[name][rows] for name in train.layers},
        uns=dict(train.uns),
    )
