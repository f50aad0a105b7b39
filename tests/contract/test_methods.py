"""What every registered method must do. A method file added to the registry is tested here without a further line."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ctrflow import folds, losses, methods, scores, storage

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAMES = methods.names()
# few steps are enough to see the direction; the architecture stays
QUICK = {
    "spacrd": {"epochs_align": 5, "epochs_fuse": 5, "epochs_classify": 40, "learning_rate": 1e-3, "batch_size": 64}
}


def options(name, **more):
    return methods.resolve_options(methods.load(name).SPEC, QUICK.get(name, {}) | more)


def fitted(name, train, seed=1, **more):
    module = methods.load(name)
    given = options(name, **more)
    if not module.SPEC.trains:
        return module.Model.from_tensors({}, given, seed)
    return module.Model.fit(train, given, seed)


@pytest.fixture(scope="module")
def trained(fold):
    """name -> the method fitted once on the fold's training view."""
    return cache(lambda name: fitted(name, fold[0]))


def target_for(name, target, truth):
    """The target as its rule hands it over: with the truth for the oracle alone."""
    target = target.copy()
    if "truth" in methods.load(name).SPEC.needs:
        target.obs["label"] = truth
    return target


@pytest.mark.parametrize("name", NAMES)
def test_spec_is_whole(name):
    spec = methods.load(name).SPEC
    assert spec.name == name
    assert spec.regime in methods.REGIMES
    assert set(spec.modalities) <= set(methods.MODALITIES)
    assert spec.reference
    assert all(option.help for option in spec.options.values())
    assert methods.resolve_options(spec, {}) == {key: option.default for key, option in spec.options.items()} | (
        next(iter(spec.presets.values())) if spec.presets else {}
    )


def test_only_the_oracle_is_handed_the_truth():
    assert [name for name in NAMES if "truth" in methods.load(name).SPEC.needs] == ["oracle"]


@pytest.mark.parametrize("name", NAMES)
def test_import_is_light(name):
    heavy = {"torch", "sklearn", "scanpy", "anndata"}
    code = f"import sys; import ctrflow.methods.{name}; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SCRIPTS)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", NAMES)
def test_one_finite_score_a_spot_and_the_same_twice(name, fold, trained):
    train, target, truth = fold
    view = target_for(name, target, truth)
    models = trained(name), fitted(name, train)
    first, second = (scores.table(view, model.score(view), name) for model in models)
    assert len(first) == target.n_obs
    assert first.equals(second)
    # and so are the losses of a training by steps
    first, second = (losses.table(getattr(model, "losses", []), name) for model in models)
    assert np.isfinite(first["value"]).all()
    assert first.equals(second)


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_it_scores_the_same(name, fold, trained, tmp_path):
    target = fold[1]
    module = methods.load(name)
    if not module.SPEC.trains:
        pytest.skip(f"{name} has no model to save")
    model, given = trained(name), options(name)
    storage.write_safetensors(model.tensors(), {"options": given}, tmp_path / "m.safetensors")
    tensors, metadata = storage.read_safetensors(tmp_path / "m.safetensors")
    again = module.Model.from_tensors(tensors, metadata["options"], 1)
    assert (again.score(target) == model.score(target)).all()


@pytest.mark.parametrize("name", NAMES)
def test_cancer_scores_higher_where_it_is_unmistakable(name, unmistakable, trained):
    if name in ("random", "total_counts"):
        pytest.skip(f"{name} is a control without direction")
    _, target, truth = unmistakable
    view = target_for(name, target, truth)
    assert roc_auc_score(truth, trained(name).score(view)) > 0.9


@pytest.mark.parametrize("name", [name for name in NAMES if "truth" not in methods.load(name).SPEC.needs])
def test_labels_of_the_target_are_not_read(name, fold, trained):
    _, target, truth = fold
    model = trained(name)
    told = target.copy()
    told.obs["label"] = truth
    assert (model.score(told) == model.score(target)).all()


@pytest.mark.parametrize(
    "name", [name for name in NAMES if methods.load(name).SPEC.seeded and methods.load(name).SPEC.trains]
)
def test_the_seed_matters(name, fold, trained):
    train, target, _ = fold
    assert (trained(name).score(target) != fitted(name, train, seed=2).score(target)).any()


@pytest.mark.parametrize("name", [name for name in NAMES if "modalities" in methods.load(name).SPEC.options])
@pytest.mark.parametrize("modality", methods.MODALITIES)
def test_one_modality_is_enough_when_told(name, modality, fold):
    train, target, _ = fold
    if modality == "gene":
        train, target = train.copy(), target.copy()
        del train.obsm["image"], target.obsm["image"]
    found = fitted(name, train, modalities=[modality]).score(target)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_image_is_refused_in_words(name):
    spec = methods.load(name).SPEC
    reason = methods.why_not(
        spec,
        methods.resolve_options(spec, {}),
        encoder="none",
        has_normals=True,
        labelled_targets=True,
    )
    assert bool(reason) == ("image" in spec.modalities)


@pytest.mark.parametrize("name", NAMES)
def test_several_target_sections_are_scored_each_by_itself(name, fold, trained):
    target = fold[1]
    model = trained(name)
    if methods.load(name).SPEC.regime == "control":
        pytest.skip("a control looks at no neighbour and no other spot")
    other = target[::-1].copy()
    other.obs["section"] = "again"
    other.obs_names = "again/" + other.obs["spot"]
    import anndata

    both = anndata.concat([target, other])
    found = model.score(both)
    assert found[: target.n_obs] == pytest.approx(model.score(target), abs=1e-6)


def test_scores_that_are_not_finite_are_refused(fold):
    from ctrflow.errors import InputError

    _, target, _ = fold
    bad = np.zeros(target.n_obs)
    bad[3] = np.nan
    with pytest.raises(InputError, match=r"1 of .* scores are not finite"):
        scores.table(target, bad, "m")
    assert "label" not in folds.with_genes(target, list(target.var_names)).obs
