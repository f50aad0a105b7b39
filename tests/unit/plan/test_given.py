"""The model that scores a section, where the task leaves the choice to its tissue."""

import pandas as pd
import pytest

from ctrflow.errors import InputError
from ctrflow.folds.fold import Fold
from ctrflow.plan.given import given_models

ENCODERS = {"enc": {"model": "efficientnet_lite0", "weights": "package"}}
GENES = {
    "method": "linear", "variant": "genes", "options": {}, "encoder": "none", "seed": 7, "sections": ["a"],
    "patients": ["a"], "modalities": ["gene"], "encoder_settings": {}, "genes": ["g"], "library_genes": ["g"],
    "code": "c", "versions": {}, "tissues": ["breast"], "platforms": ["st"], "simulated": False, "likeness": [],
    "depth": [900.0], "least_genes": 60, "gate": {}, "picture": [], "calibration": {},
}  # fmt: skip
PICTURE = GENES | {
    "variant": "picture", "modalities": ["image", "gene"], "encoder": "enc", "encoder_digest": "abc", "patch_px": 224,
    "patch_um": [[55.0]], "encoder_settings": {"model": "efficientnet_lite0", "channel_order": "rgb"},
}  # fmt: skip
SHIPPED = {"name": "map", "split": "pretrained", "model": "shipped"}


def sheet(**columns):
    rows = {"section": ["x", "y"], "patient": ["x", "y"], "platform": "st", "tissue": "Breast", "image": ["i", ""]}
    return pd.DataFrame(rows | columns)


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    for name in ("breast/image", "breast/expression", "colon/expression"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.safetensors").touch()
    (folder / "liver").mkdir()  # without a model
    return folder


def chosen(models, rows):
    """Section -> the variant and encoder that score it."""
    read = {"image": PICTURE, "expression": GENES}
    folds = [Fold(name, (), (name,)) for name in rows.section]
    found = given_models(
        SHIPPED, folds, rows, ENCODERS, str(models), lambda path: read[path.rsplit("/")[-1].split(".")[0]], "s.yaml"
    )
    assert all(fold.model == one.path for one in found for fold in one.folds)
    return {fold.name: (one.variant.name, one.encoder) for one in found for fold in one.folds}


def test_by_tissue_and_picture(models):
    assert chosen(models, sheet()) == {"x": ("picture", "enc"), "y": ("genes", "none")}


def test_a_tissue_with_a_model_of_expression_alone_ignores_the_picture(models):
    (models / "breast/image.safetensors").unlink()
    assert chosen(models, sheet()) == {"x": ("genes", "none"), "y": ("genes", "none")}


def test_no_model_is_one_message_with_the_choices(models):
    with pytest.raises(InputError) as error:
        chosen(models, sheet(tissue=["liver", ""]))
    text = str(error.value)
    assert "s.yaml: no model for x (tissue liver), y (no tissue given)" in text
    assert "has models for: breast, colon. Correct the column tissue" in text
    for choice in ("draw a few regions", "name labelled sections", "marker genes"):
        assert choice in text


def test_all_that_speaks_against_the_models_comes_at_once(models):
    with pytest.raises(InputError) as error:
        chosen(models, sheet(patient=["a", "a"]))
    assert str(error.value).count("was trained on sections of the same patient as") == 2
