"""What every registered encoder must do; a module added to the registry is tested without another edit."""

import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from ctrflow import encoders, simulate
from ctrflow.encoders import network
from ctrflow.errors import InputError

SCRIPTS = Path(__file__).parents[2] / "scripts"
# a module for any model of a library is tested with a small one
MODELS = {"timm:<model name>": "timm:test_vit"}
BIG = {"uni", "uni2_h"}
NAMES = encoders.names()


def model_of(name: str) -> str:
    return MODELS.get(name, name)


def options(name: str, **more) -> dict:
    """Options that need no files."""
    untrained = {"weights": "random"} if "weights" in encoders.load(model_of(name)).OPTIONS else {}
    return {"model": model_of(name), "device": "cpu"} | untrained | more


def marked(names) -> list:
    """Encoders too large for the default run are marked slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in BIG else name for name in names]


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    """Five spots of a simulated section; the first lies in the corner of its image."""
    from PIL import Image

    section = simulate.simulate_section("st", 20, 50, seed=3)
    path = tmp_path_factory.mktemp("image") / "slide.png"
    Image.fromarray(section.image).save(path)
    found = anndata.AnnData(section.counts[:5], obs=pd.DataFrame(index=section.spots["spot"][:5].to_numpy()))
    found.obsm["spatial"] = section.spots[["x_px", "y_px"]].to_numpy(dtype=float)[:5]
    found.obsm["spatial"][0] = 1.0
    found.uns["section"] = {
        "section": "S1", "um_per_px": section.um_per_px, "spot_um": 100.0, "image": str(path), "image_scale": 1.0,
    }  # fmt: skip
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_module_is_complete(name):
    module = encoders.load(model_of(name))
    assert name == module.MODEL
    assert ":" in name or module.__name__ == f"ctrflow.encoders.{name}"
    assert module.__doc__.strip()
    assert isinstance(module.OPTIONS, tuple)
    assert not {"model", "device"} & set(module.OPTIONS)
    assert callable(module.build)
    if "weights" not in module.OPTIONS:
        assert not hasattr(module, "access")
        return
    assert set(network.OPTIONS) <= set(module.OPTIONS)
    assert callable(module.access)


@pytest.mark.parametrize("name", NAMES)
def test_importing_it_loads_nothing_heavy(name):
    module = encoders.load(model_of(name)).__name__
    code = f"import sys, {module}; print(sorted({{'torch', 'timm', 'huggingface_hub', 'skimage'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SCRIPTS)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr[-500:]


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(encoders.load(model_of(name)), "NETWORK")])
def test_the_facts_fit_the_network(name):
    import torch

    net = encoders.load(name).NETWORK
    assert net.name == name
    assert net.source.page.startswith("https://")
    assert net.source.revision is None or len(net.source.revision) == 40
    with torch.device("meta"):  # shapes without values
        model = network.architecture(net.architecture, net.arguments)
        out = model(torch.zeros(2, 3, net.side_px, net.side_px))
    assert tuple(out.shape) == (2, net.dim)


@pytest.mark.parametrize("name", marked(NAMES))
def test_a_section_is_embedded(name, spots):
    module = encoders.load(model_of(name))
    first, second = (encoders.embed_section(spots, "id", options(name)) for _ in range(2))
    assert first.X.dtype == np.float32
    assert np.isfinite(first.X).all()
    np.testing.assert_array_equal(first.X, second.X)
    assert len(np.unique(first.X.round(4), axis=0)) == 5  # features depend on the patch
    assert first.obs_names.tolist() == spots.obs_names.tolist()
    assert first.var_names.is_unique
    if hasattr(module, "NETWORK"):
        assert first.n_vars == module.NETWORK.dim
    about = first.uns["encoder"]
    assert set(about) == {"id", "digest", "patch_um", "patch_px", "padded", "precision", "params", "channel_order"}
    assert (about["id"], about["precision"], about["channel_order"]) == ("id", "fp32", "rgb")
    assert about["padded"] >= 1
    assert all(isinstance(um, float) for um in about["patch_um"])


@pytest.mark.parametrize("name", NAMES)
def test_wrong_options_are_refused_before_anything_is_built(name):
    wrong = {"wieghts": "random"}
    if "weights" in encoders.load(model_of(name)).OPTIONS:
        encoders.check("id", options(name, precision="fp32", patch_um=[100, 200]))
        missing = options(name, weights="gone.safetensors")
        with pytest.raises(InputError, match=r"encoder id: no weights file gone\.safetensors"):
            encoders.check("id", missing)
        with pytest.raises(InputError, match=r"encoder id: gone\.safetensors: no such weights file"):
            encoders.build("id", missing)
        with pytest.raises(InputError, match="encoder id: precision is 'half'"):
            encoders.check("id", options(name, precision="half"))
        encoders.check("id", options(name, crop_px=224, channel_order="bgr"))
        with pytest.raises(InputError, match="encoder id: both patch_um and crop_px are given; keep one"):
            encoders.check("id", options(name, crop_px=224, patch_um=100))
        with pytest.raises(InputError, match="encoder id: unknown device 'tpu'; set it to auto, cpu, cuda or mps"):
            encoders.build("id", options(name, device="tpu"))
    else:
        wrong |= {"patch_um": 100, "crop_px": 224, "channel_order": "bgr"}
    for option, value in wrong.items():
        for refuse in (encoders.check, encoders.build):
            with pytest.raises(InputError, match=rf"encoder id: unknown option {option}; valid for {name}: "):
                refuse("id", options(name) | {option: value})


@pytest.mark.parametrize("name", NAMES)
def test_random_or_no_weights_are_always_available(name):
    assert encoders.access(options(name)) is None
