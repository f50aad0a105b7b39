"""What every registered method must do. A new method file is tested without changes to these tests."""

import re
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from ctrflow import logs, methods, storage
from ctrflow.errors import InputError
from ctrflow.folds import depth, tables
from ctrflow.results import scores
from ctrflow.training import losses
from quick import quick_options

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAMES = methods.names()
TRAINED = [name for name in NAMES if methods.load(name).SPEC.trains]
DRAWN = [name for name in NAMES if methods.load(name).SPEC.regime == "drawn"]  # they score what they learned from alone
CONTROLS = [name for name in NAMES if methods.load(name).SPEC.regime == "control"]
# methods that cannot detect a region of planted cancer, and why
BLIND = {
    "random": "a control without direction",
    "total_counts": "a control without direction",
    "prior": "a control, as good as the scores that it is given",
    # what these do detect is planted in their own tests
    "spatial_id": "scores the doubt of a classifier of normal classes, which has none about cancer; test_spatial_id.py",
    "stands": "its critic tells rebuilt from real, and the side of cancer depends on the seed; test_stands.py",
    "prem": "finds spots that do not fit their neighbourhood, and a region fits itself; test_prem.py",
}


def fitted(name, train, seed=1, **more):
    module = methods.load(name)
    given = quick_options(name, **more)
    if not module.SPEC.trains:
        return module.Model.from_tensors({}, given, seed)
    return module.Model.fit(train, given, seed)


@pytest.fixture(scope="module")
def trained(cohort):
    """name -> the method fitted once on its training view."""
    return cache(lambda name: fitted(name, cohort.train(name) if name in TRAINED else None))


@pytest.fixture(scope="module")
def scored(cohort, trained):
    """name -> its scores of the target."""
    return cache(lambda name: trained(name).score(with_truth(name, cohort.target(name), cohort.truth)))


def with_truth(name, target, truth):
    """The target as its rule passes it: with the truth only for the oracle."""
    if "truth" in methods.load(name).SPEC.needs:
        target.obs["label"] = truth
    return target


@pytest.mark.parametrize("name", NAMES)
def test_spec_is_complete(name):
    spec = methods.load(name).SPEC
    assert spec.name == name
    assert spec.regime in methods.REGIMES
    assert set(spec.modalities) <= set(methods.MODALITIES)
    assert spec.reference
    assert spec.threshold in ("mixture", "map_em", "zero")
    assert set(spec.needs) <= {"patches", "superpixels", "markers", "positions", "prior", "truth"}
    assert set(spec.pretrain) <= set(spec.options)
    assert {"patch_um", "patch_px"} <= set(spec.options) or "patches" not in spec.needs
    assert all(option.help for option in spec.options.values())
    assert methods.resolve_options(spec, {}) == {key: option.default for key, option in spec.options.items()} | (
        next(iter(spec.presets.values())) if spec.presets else {}
    )
    for preset in spec.presets:
        methods.resolve_options(spec, {"preset": preset})


@pytest.mark.parametrize("name", [name for name in NAMES if "fast" in methods.load(name).SPEC.presets])
def test_the_fast_preset_is_documented_as_it_is(name):
    """docs/lists.md is generated; a page that describes a method must agree with it."""
    pages = [path.read_text() for path in (SCRIPTS.parent / "docs").glob("*.md") if path.name != "lists.md"]
    cards = re.split(rf"^##+ {name}$", "".join(pages), flags=re.MULTILINE)[1:]
    for card in cards:
        rows = re.findall(r"^\| `(\w+)` \| [^|]*\(`fast`:? ([^)]*)\) \|", card.split("\n## ")[0], flags=re.MULTILINE)
        assert {option: yaml.safe_load(value) for option, value in rows} == methods.load(name).SPEC.presets["fast"]


def test_only_the_oracle_gets_the_truth():
    assert [name for name in NAMES if "truth" in methods.load(name).SPEC.needs] == ["oracle"]


@pytest.mark.parametrize("name", NAMES)
def test_import_is_light(name):
    heavy = {"torch", "sklearn", "scanpy", "anndata"}
    code = f"import sys; import ctrflow.methods.{name}; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SCRIPTS)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", [name for name in NAMES if methods.load(name).SPEC.regime == "normal_reference"])
def test_a_normal_reference_has_no_label(name, cohort):
    assert "label" not in cohort.train(name).obs


@pytest.mark.parametrize("name", NAMES)
def test_one_finite_score_a_spot_and_the_same_twice(name, cohort, trained, scored):
    target = with_truth(name, cohort.target(name), cohort.truth)
    first = scores.table(target, scored(name), name)
    assert len(first) == target.n_obs
    again = fitted(name, cohort.train(name) if name in TRAINED else None)
    assert first.equals(scores.table(target, again.score(target), name))
    # so are the losses of training by steps, which has a fast preset
    curves, curves_again = (losses.table(getattr(model, "losses", []), name) for model in (trained(name), again))
    assert np.isfinite(curves["value"]).all()
    assert curves.equals(curves_again)
    assert curves.empty or "fast" in methods.load(name).SPEC.presets


@pytest.mark.parametrize("name", TRAINED)
def test_saved_and_loaded_it_scores_the_same(name, cohort, trained, scored, tmp_path):
    module, given = methods.load(name), quick_options(name)
    storage.write_safetensors(trained(name).tensors(), {"options": given}, tmp_path / "m.safetensors")
    tensors, metadata = storage.read_safetensors(tmp_path / "m.safetensors")
    again = module.Model.from_tensors(tensors, metadata["options"], 1)
    assert (again.score(cohort.target(name)) == scored(name)).all()


@pytest.mark.parametrize("name", [name for name in NAMES if methods.load(name).SPEC.pretrain])
def test_pretrained_weights_are_those_that_fit_learns_itself(name, cohort, scored):
    module, given = methods.load(name), quick_options(name)
    decides = {option: given[option] for option in module.SPEC.pretrain}
    tensors, pretraining = module.Model.pretrain(cohort.train(name), decides, 1)
    losses.table(pretraining, name)
    model = module.Model.fit(cohort.train(name), given, 1, pretrained=tensors)
    assert (model.score(cohort.target(name)) == scored(name)).all()


def test_the_steps_thin_reference_and_target_to_the_depth_asked_for(cohort, tmp_path, monkeypatch):
    """No method knows of it: the steps do it, here with one that reads no raw counts itself."""
    monkeypatch.setattr(logs, "setup", lambda *_: logs.logger)
    options = methods.resolve_options(methods.load("scmap").SPEC, {"equal_depth": 150})
    train, target = cohort.train("scmap"), cohort.target("scmap")
    for name, view in (("train", train), ("target", target)):
        storage.write_h5ad(view, tmp_path / f"{name}.h5ad")
        assert (view.obs["total_counts"] > 150).mean() > 0.9
    made = {name: [str(tmp_path / name)] for name in ("models", "costs", "losses", "scores", "evidence")}
    params = SimpleNamespace(
        method="scmap", options=options, seeds=[3], threads=1, device="cpu", encoder={}, code="", origin={},
        calibrates=False, sections=["P3"], platforms={},
    )  # fmt: skip
    beside = ("level", "patches", "pretrained", "superpixels", "markers", "positions", "truth", "counts")
    inputs = (*beside, "drawn", "prior")
    absent = {name: [] for name in inputs}
    snakemake = SimpleNamespace(
        log=[str(tmp_path / "log")],
        params=params,
        wildcards=SimpleNamespace(method="scmap", encoder="hed"),
        input=SimpleNamespace(
            train=str(tmp_path / "train.h5ad"), target=str(tmp_path / "target.h5ad"), models=made["models"], **absent
        ),
        output=SimpleNamespace(**made),
    )
    for step in ("train_method", "infer_scores"):
        runpy.run_path(str(SCRIPTS / f"{step}.py"), init_globals={"snakemake": snakemake})
    found = storage.read_tsv(made["scores"][0])["score"].to_numpy()

    def expected(reference, section):
        return methods.load("scmap").Model.fit(reference, options, 3).score(section)

    assert found == pytest.approx(expected(depth.thinned(train, 150, 3), depth.thinned(target, 150, 3)), abs=1e-9)
    assert np.abs(found - expected(depth.thinned(train, 150, 3), target)).max() > 0.01
    assert np.abs(found - expected(train, depth.thinned(target, 150, 3))).max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_cancer_scores_higher_where_it_is_unmistakable(name, cohort, trained):
    if name in BLIND:
        pytest.skip(f"{name}: {BLIND[name]}")
    target = with_truth(name, cohort.unmistakable(name), cohort.planted)
    model = fitted(name, cohort.taught_unmistakable(name)) if name in DRAWN else trained(name)
    assert roc_auc_score(cohort.planted, model.score(target)) > 0.9


@pytest.mark.parametrize("name", [name for name in NAMES if "truth" not in methods.load(name).SPEC.needs])
def test_labels_of_the_target_are_not_read(name, cohort, trained, scored):
    target = cohort.target(name)
    target.obs["label"] = cohort.truth
    assert (trained(name).score(target) == scored(name)).all()


@pytest.mark.parametrize("name", [name for name in TRAINED if methods.load(name).SPEC.seeded])
def test_the_seed_matters(name, cohort, scored):
    assert (scored(name) != fitted(name, cohort.train(name), seed=2).score(cohort.target(name))).any()


@pytest.mark.parametrize("name", [name for name in NAMES if "modalities" in methods.load(name).SPEC.options])
@pytest.mark.parametrize("modality", methods.MODALITIES)
def test_one_modality_is_enough_with_the_option(name, modality, cohort):
    train, target = cohort.train(name), cohort.target(name)
    if modality == "gene":
        del train.obsm["image"], target.obsm["image"]
        train.obsm.pop("patches", None), target.obsm.pop("patches", None)
    found = fitted(name, train, modalities=[modality]).score(target)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_image_is_refused_with_a_reason(name):
    spec = methods.load(name).SPEC
    reason = methods.why_not(
        spec,
        methods.resolve_options(spec, {}),
        encoder="none",
        has_sources=True,
        has_normals=True,
        labelled_targets=True,
        drawn=name in DRAWN,
        has_prior=True,
    )
    assert bool(reason) == ("image" in spec.modalities)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*CONTROLS, *DRAWN)])
def test_several_target_sections_are_scored_each_by_itself(name, cohort, trained, scored):
    target = cohort.target(name)
    other = target[::-1].copy()
    other.obs["section"] = "again"
    other.obs_names = "again/" + other.obs["spot"]
    both = anndata.concat([target, other])
    # per-section inputs
    section = target.obs["section"].iloc[0]
    for need in {"superpixels", "markers"} & set(target.uns):
        both.uns[need] = {section: target.uns[need][section], "again": target.uns[need][section]}
    if "positions" in target.uns:
        both.uns["positions"] = target.uns["positions"]
    found = trained(name).score(both)
    assert found[: target.n_obs] == pytest.approx(scored(name), abs=1e-5)


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_in_a_section_scores_no_other(name, cohort, trained):
    with pytest.raises(InputError, match="scores the section that it learned from, and no other"):
        trained(name).score(cohort.unmistakable(name))


def test_scores_that_are_not_finite_are_refused(cohort):
    target = cohort.target("random")
    bad = np.zeros(target.n_obs)
    bad[3] = np.nan
    with pytest.raises(InputError, match=r"1 of .* scores are not finite"):
        scores.table(target, bad, "m")
    assert "label" not in tables.with_genes(target, list(target.var_names)).obs
