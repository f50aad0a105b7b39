"""What the recipe of the shipped breast models rests on: trials inside the source patients (models/breast/README.md).

    python tests/bench/recipe.py expression               30 sections of six patients: two left out, one of them scored
    python tests/bench/recipe.py image lite0_fast         8 sections of three patients with a picture: the same

Of two patients left out, one is scored and the other is the target whose recipe is being chosen: the column of a target
is the mean over the patients scored, and its best candidate is the choice that its own sources would make. It reads
results/sections and results/embeddings, which `make shipped-models` leaves behind.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from sklearn.metrics import roc_auc_score

from ctrflow import methods, storage
from ctrflow.folds import tables
from ctrflow.methods import linear

RESULTS = Path("results")
SHEET = Path("models/breast/sections.tsv")
SCORING = {
    "no neighbours": {"neighbours": 0, "refits": 0},
    "6 neighbours": {"neighbours": 6, "refits": 0},
    "18 neighbours": {"neighbours": 18, "refits": 0},
    "1 refit": {"neighbours": 6, "refits": 1},
    "2 refits": {"neighbours": 6, "refits": 2},
    "4 refits": {"neighbours": 6, "refits": 4},
    "8 refits": {"neighbours": 6, "refits": 8},
}
TRAINING = {
    "expression": {
        "C 1e-5": {"modalities": ["gene"], "C": 1e-5},
        "C 1e-4": {"modalities": ["gene"], "C": 1e-4},
        "C 1e-3": {"modalities": ["gene"], "C": 1e-3},
    },
    "image": {
        "picture alone": {"modalities": ["image"]},
        "joint": {},
        "late": {"fusion": "late"},
    },
}


def main(kind: str, encoder: str = "none") -> None:
    """Print the mean AUC of each candidate inside the sources of each target."""
    sheet = pd.read_csv(SHEET, sep="\t", dtype=str, keep_default_na=False).set_index("section")
    pictured = sheet[sheet.image != ""] if kind == "image" else sheet
    patients = list(dict.fromkeys(pictured.patient))
    found: dict[tuple, dict] = {}
    for pair in itertools.combinations(patients, 2):
        for trained, options in TRAINING[kind].items():
            own = sheet if trained == "late" else pictured  # others need the picture of every section
            sources = [name for name in own.index if own.patient[name] not in pair]
            genes, model = fit(sources, encoder, options)
            for scored in pair:
                other = pair[scored == pair[0]]
                targets = [name for name in pictured.index if pictured.patient[name] == scored]
                for how, given in SCORING.items():
                    auc = np.mean([score(model, genes, name, encoder, given) for name in targets])
                    found.setdefault((trained, how), {}).setdefault(other, []).append(auc)
            print(f"{' and '.join(pair)} left out: {trained}", file=sys.stderr, flush=True)
    print("\t".join(["training", "scoring", "mean", *(f"for {name}" for name in patients)]))
    for (trained, how), of_target in found.items():
        means = [np.mean(of_target[name]) for name in patients]
        print("\t".join([trained, how, f"{np.mean(means):.4f}", *(f"{mean:.4f}" for mean in means)]))


def fit(sources: list[str], encoder: str, options: dict) -> tuple:
    """The genes of the training table, and the model."""
    spots = {name: section(name) for name in sources}
    labels = {name: storage.read_tsv(RESULTS / f"sections/{name}/labels.tsv") for name in sources}
    train = tables.together(tables.build_train(tables.train_view(spots, features(sources, encoder), labels), 3000))
    chosen = methods.resolve_options(linear.SPEC, options)
    return list(train.var_names), linear.Model.fit(train, chosen, 0)


def score(model, genes: list[str], name: str, encoder: str, given: dict) -> float:
    """The AUC on a section, scored in another way."""
    target = tables.with_genes(tables.target_view({name: section(name)}, features([name], encoder)), genes)
    labels = storage.read_tsv(RESULTS / f"sections/{name}/labels.tsv").set_index("spot")["label"].astype(float)
    truth = labels.loc[target.obs["spot"]].to_numpy()
    known = ~np.isnan(truth)
    values = linear.Model(model.weights, model.intercept, model.options | given).score(target)
    return roc_auc_score(truth[known], values[known])


def section(name: str):
    """The spots of a section."""
    return storage.read_h5ad(RESULTS / f"sections/{name}/spots.h5ad")


def features(names: list[str], encoder: str) -> dict:
    """The image features of the sections that have them."""
    paths = {name: RESULTS / f"embeddings/{encoder}/{name}.h5ad" for name in names if encoder != "none"}
    return {name: storage.read_h5ad(path) for name, path in paths.items() if path.exists()}


if __name__ == "__main__":
    main(*sys.argv[1:])
