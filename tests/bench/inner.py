"""What the choices of the preset `enhanced` rest on: trials inside the source patients, no target of a fold involved.

    python tests/bench/inner.py paired lite0_two_fields      image and expression: train on one patient, score another
    python tests/bench/inner.py expression none              expression: train on two patients, score a third
    python tests/bench/inner.py paired lite0 spacrd          the candidates whose name begins with `spacrd` alone

It reads results/sections and results/embeddings, which the studies `presets` and `presets_expression` of
tests/workflow/her2st leave behind. The last columns are, for each fold of those studies, the mean over the trials among
its own sources: what a choice made for that fold could look at.
"""

import itertools
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from sklearn.metrics import average_precision_score, roc_auc_score

from ctrflow import methods, storage
from ctrflow.folds import tables

RESULTS = Path("results")
PATIENTS = {
    "paired": {"A": ["A1"], "B": ["B4"], "C": ["C2", "C3"]},
    "expression": {patient: [f"{patient}1_expression"] for patient in "ABCD"},
}
SEED = 42
OTHER = {"scaling": "zscore", "batch_size": 64, "epochs_align": 10, "epochs_fuse": 10, "epochs_classify": 20}
CANDIDATES = {
    "linear": ("linear", {}),
    "linear, no neighbours": ("linear", {"neighbours": 0}),
    "linear, 12 neighbours": ("linear", {"neighbours": 12}),
    "linear, 18 neighbours": ("linear", {"neighbours": 18}),
    "linear, 1 refit": ("linear", {"refits": 1}),
    "linear, 2 refits": ("linear", {"refits": 2}),
    "linear, 4 refits": ("linear", {"refits": 4}),
    "linear, 8 refits": ("linear", {"refits": 8}),
    "spacrd enhanced": ("spacrd", {"preset": "enhanced"}),
    "spacrd enhanced, no refit": ("spacrd", {"preset": "enhanced", "refits": 0}),
    "spacrd enhanced, no refit, z-scores": ("spacrd", {"preset": "enhanced", "refits": 0, "scaling": "zscore"}),
    "spacrd, z-scores, batches of 64, 1e-4": ("spacrd", OTHER | {"learning_rate": 1e-4}),
    "spacrd, z-scores, batches of 64, 3e-4": ("spacrd", OTHER | {"learning_rate": 3e-4}),
    "spacrd paper": ("spacrd", {}),
    "spacrd paper, 4 refits": ("spacrd", {"refits": 4}),
}


def main(study: str, encoder: str, beginning: str = "") -> None:
    """Print a line for each candidate."""
    patients = PATIENTS[study]
    modalities = ["gene"] if study == "expression" else ["image", "gene"]
    size = 1 if study == "paired" else len(patients) - 2
    trials = [
        (sources, target)
        for target in patients
        for sources in itertools.combinations([name for name in patients if name != target], size)
    ]
    views = {trial: build(patients, *trial, encoder) for trial in trials}
    print("candidate\tAUC\tAP\t" + "\t".join(f"for {name}" for name in patients), flush=True)
    for name, (method, given) in CANDIDATES.items():
        if not name.startswith(beginning):
            continue
        found = {trial: score(method, given | {"modalities": modalities}, *view) for trial, view in views.items()}
        auc, ap = np.mean(list(found.values()), axis=0)
        own = [
            np.mean([value[0] for (sources, target), value in found.items() if left_out not in (*sources, target)])
            for left_out in patients
        ]
        print(f"{name}\t{auc:.3f}\t{ap:.3f}\t" + "\t".join(f"{value:.3f}" for value in own), flush=True)


def build(patients: dict, sources: tuple, target: str, encoder: str) -> tuple:
    """Training and target view of a trial, and the truth of the target by section."""
    names = [section for patient in sources for section in patients[patient]]
    train = tables.train_view(spots_of(names), embeddings(names, encoder), {name: labels(name) for name in names})
    view = tables.target_view(spots_of(patients[target]), embeddings(patients[target], encoder))
    truth = {name: labels(name).set_index("spot")["label"].astype(float) for name in patients[target]}
    return *map(tables.together, tables.build_views(train, view, n_genes=3000)), truth


def spots_of(names: list[str]) -> dict:
    """The spots of sections."""
    return {name: storage.read_h5ad(RESULTS / "sections" / name / "spots.h5ad") for name in names}


def embeddings(names: list[str], encoder: str) -> dict:
    """Their image features; none without an encoder."""
    if encoder == "none":
        return {}
    return {name: storage.read_h5ad(RESULTS / "embeddings" / encoder / f"{name}.h5ad") for name in names}


def labels(name: str):
    """The labels of a section."""
    return storage.read_tsv(RESULTS / "sections" / name / "labels.tsv")


def score(method: str, given: dict, train, target, truth: dict) -> tuple[float, float]:
    """AUC and AP of a candidate on a trial, averaged over the sections of the target."""
    module = methods.load(method)
    options = methods.resolve_options(module.SPEC, given)
    table = target.obs.assign(score=module.Model.fit(train, options, SEED).score(target))
    found = []
    for section, rows in table.groupby("section"):
        known = truth[section].loc[rows["spot"]].to_numpy()
        use = ~np.isnan(known)
        scores = rows["score"].to_numpy()[use]
        found.append((roc_auc_score(known[use], scores), average_precision_score(known[use], scores)))
    return tuple(np.mean(found, axis=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
