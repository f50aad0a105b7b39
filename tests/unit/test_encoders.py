import logging
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix

from ctrflow import encoders
from ctrflow.encoders import hed_texture, timm_model
from ctrflow.errors import InputError

WEIGHTS = Path(__file__).parents[3] / "shared" / "data" / "weights" / "tf_efficientnet_lite0.safetensors"
TINY = {"model": "timm:test_vit", "weights": "random"}  # 160 px, 64 values
UNI = {
    "model": "timm:hf-hub:MahmoodLab/uni",
    "weights": "random",
    "model_args": {"init_values": 1e-5, "dynamic_img_size": True},
}
STROMA, NUCLEUS = (228, 170, 205), (70, 50, 130)


def tissue(side_px: int, pitch_px: int, radius_px: float = 4, um_per_px: float = 1.0) -> np.ndarray:
    """Round nuclei on a square grid; lengths in px of a picture of 1 µm/px, drawn at `um_per_px`."""
    y, x = (np.indices((side_px, side_px)) + 0.5) * um_per_px
    inside = (x % pitch_px - pitch_px / 2) ** 2 + (y % pitch_px - pitch_px / 2) ** 2 <= radius_px**2
    return np.where(inside[..., None], NUCLEUS, STROMA).astype(np.uint8)


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


class TestRegistry:
    def test_names_and_modules(self):
        assert encoders.names() == ["hed_texture", "timm:<model name>"]
        assert encoders.load("hed_texture") is hed_texture
        assert encoders.load("timm:hf-hub:MahmoodLab/uni") is timm_model

    @pytest.mark.parametrize("model", ["hed", "timm", "timm:", "hed_texture:2", "resnet50", ""])
    def test_unknown_names_list_the_valid_ones(self, model):
        with pytest.raises(InputError, match=r"no encoder.*hed_texture, timm:<model name>"):
            encoders.load(model)

    def test_options_are_checked(self):
        with pytest.raises(InputError, match=r"encoder x: no `model`"):
            encoders.build("x", {})
        with pytest.raises(InputError, match=r"encoder x: unknown option patch_um; hed_texture takes: none"):
            encoders.build("x", {"model": "hed_texture", "patch_um": 100})
        with pytest.raises(InputError, match=r"encoder x: unknown option wieghts; timm:<model name> takes: weights, "):
            encoders.build("x", {"model": "timm:resnet18", "wieghts": "random"})
        assert encoders.build("x", {"model": "hed_texture", "device": "cpu"}).patch_px == 192  # every encoder is told
        for wrong in (0, -5, "100", float("nan")):
            with pytest.raises(InputError, match=r"encoder x: patch_um is"):
                encoders.build("x", TINY | {"patch_um": wrong})


class TestEmbedSection:
    def test_contract(self, tmp_path, caplog):
        caplog.set_level(logging.INFO, "ctrflow")
        xy = [[60.0, 60.0], [10.0, 60.0], [128.0, 90.0]]
        found = encoders.embed_section(section(tmp_path, tissue(256, 16), xy), "tiny", TINY, batch=2)
        assert found.X.dtype == np.float32
        assert found.shape == (3, 64)
        assert found.obs_names.tolist() == ["spot0", "spot1", "spot2"]
        expected = {"id": "tiny", "digest": "random", "patch_um": 55.0, "patch_px": 160, "padded": 1}
        assert found.uns["encoder"] == expected
        assert "spots/s" in caplog.text

    def test_it_is_written_and_read_back(self, tmp_path):
        spots = section(tmp_path, tissue(256, 16), [[128.0, 128.0]])
        found = encoders.embed_section(spots, "hed", {"model": "hed_texture"})
        found.write_h5ad(tmp_path / "e.h5ad")
        again = anndata.read_h5ad(tmp_path / "e.h5ad")
        np.testing.assert_array_equal(again.X, found.X)
        assert dict(again.uns["encoder"]) == found.uns["encoder"]
        assert again.uns["encoder"]["patch_um"] == 200

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

    def test_a_model_without_pooling_is_refused(self, tmp_path):
        spots = section(tmp_path, tissue(256, 16), [[60.0, 60.0]])
        with pytest.raises(InputError, match=r"encoder flat: gives 101 x 64 values a patch.*pooling"):
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
        with pytest.raises(InputError, match=r"w\.safetensors.*1 missing \(cls_token\), 1 not expected \(odd\)"):
            encoders.build("x", options)
        save_file(state | {"cls_token": torch.ones(1, 1, 32)}, path)
        with pytest.raises(InputError, match=r"w\.safetensors: weights of another shape.*cls_token"):
            encoders.build("x", options)
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(InputError, match=r"w\.safetensors: not a whole safetensors file"):
            encoders.build("x", options)
        for name, content in {"w.bin": b"<html>", "w.pth": b""}.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=f"{name}: not a whole file of torch tensors; download"):
                encoders.build("x", TINY | {"weights": str(tmp_path / name)})
        torch.save({"epoch": 3, "state_dict": state}, tmp_path / "w.pt")
        with pytest.raises(InputError, match=r"w\.pt: not a plain state dict"):
            encoders.build("x", TINY | {"weights": str(tmp_path / "w.pt")})
        (tmp_path / "w.npz").touch()
        with pytest.raises(InputError, match=r"w\.npz: weights are a"):
            encoders.build("x", TINY | {"weights": str(tmp_path / "w.npz")})

    def test_code_in_a_weights_file_is_not_run(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "sprung",))

        torch.save({"cls_token": Trap()}, tmp_path / "w.pth")
        with pytest.raises(InputError, match=r"w\.pth: not a whole file of torch tensors"):
            encoders.build("x", TINY | {"weights": str(tmp_path / "w.pth")})
        assert not (tmp_path / "sprung").exists()

    def test_unknown_models_and_arguments(self):
        with pytest.raises(InputError, match=r"timm has no model 'resnet5O' \(close: resnet50"):
            encoders.build("x", {"model": "timm:resnet5O", "weights": "random"})
        with pytest.raises(InputError, match=r"timm cannot build test_vit with model_args \{'depht': 2\}"):
            encoders.build("x", TINY | {"model_args": {"depht": 2}})
        with pytest.raises(InputError, match="no `weights`; give a file, `hub`"):
            encoders.build("x", {"model": "timm:test_vit"})
        with pytest.raises(InputError, match="device 'tpu'; give auto, cpu or cuda"):
            encoders.build("x", TINY | {"device": "tpu"})
        with pytest.raises(InputError, match=r"known from its config\.json; put that file beside"):
            encoders.build("x", {"model": "timm:hf-hub:someone/else", "weights": "random"})

    def test_no_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(InputError, match="torch sees no GPU"):
            encoders.build("x", TINY | {"device": "cuda"})

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

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            ("GatedRepoError", ["gated", "request access on https://huggingface.co/MahmoodLab/uni", "HF_TOKEN"]),
            ("RepositoryNotFoundError", ["the name is wrong", "HF_TOKEN"]),
            ("LocalEntryNotFoundError", ["cannot be downloaded (no net)", "check the network", "HF_TOKEN"]),
            ("OfflineModeIsEnabled", ["cannot be downloaded (no net)"]),
        ],
    )
    def test_the_hub_refuses(self, monkeypatch, error, words):
        import timm
        from huggingface_hub import errors

        kind = getattr(errors, error)
        refusal = kind.__new__(kind, "no net")  # their constructors want an HTTP response

        def create_model(name, pretrained, **_):
            assert (name, pretrained) == ("hf-hub:MahmoodLab/uni", True)
            raise refusal

        refusal.args = ("no net",)
        monkeypatch.setattr(kind, "__str__", lambda self: "no net")
        monkeypatch.setattr(timm, "create_model", create_model)
        with pytest.raises(InputError) as caught:
            encoders.build("uni", UNI | {"weights": "hub"})
        for word in [*words, "timm:hf-hub:MahmoodLab/uni", "`weights: <path>`"]:
            assert word in str(caught.value)

    def test_real_weights(self):
        if not WEIGHTS.is_file():
            pytest.skip(f"no pretrained weights: {WEIGHTS} is absent")
        options = {"model": "timm:tf_efficientnet_lite0", "weights": str(WEIGHTS), "device": "cpu"}
        model = timm_model.create(options)
        assert timm_model.preprocessing(model, options) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 224)
        stored = load_file(WEIGHTS)
        assert torch.equal(model.state_dict()["conv_stem.weight"], stored["conv_stem.weight"])
        encoder = encoders.build("lite0", options)
        values = encoder.for_section(None)(np.full((1, 224, 224, 3), 200, np.uint8))
        assert values.shape == (1, 1280)


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
        found = describe(patches_of(tissue(192, 16), tissue(192, 32)))
        density = found["um200.nuclei_per_1000um2"]
        np.testing.assert_allclose(density, [1000 * 144 / 200**2, 1000 * 36 / 200**2], rtol=1e-5)
        np.testing.assert_allclose(found["um100.nuclei_per_1000um2"][0], 1000 * 36 / 100**2, rtol=1e-5)
        np.testing.assert_allclose(found["um200.nuclei_distance_um"], [16 * 200 / 192, 32 * 200 / 192], rtol=0.01)
        # a disc of radius 4 px covers 50.3 of 256 or 1024 px
        np.testing.assert_allclose(found["um200.nuclei_area"], [50.3 / 256, 50.3 / 1024], rtol=0.15)
        assert found["um200.h_mean"][0] > found["um200.h_mean"][1]

    def test_large_nuclei_are_told_from_small_ones(self):
        found = describe(patches_of(tissue(192, 24, radius_px=2.5), tissue(192, 24, radius_px=6)))
        np.testing.assert_array_equal(found["um200.nuclei_large"], [0, 1])

    def test_a_field_sees_its_own_part(self):
        picture = tissue(192, 32)
        picture[48:144, 48:144] = tissue(192, 16)[48:144, 48:144]
        found = describe(patches_of(picture, tissue(192, 16)))
        assert found["um100.h_mean"][0] == pytest.approx(found["um100.h_mean"][1], abs=1e-5)
        assert found["um200.h_mean"][0] < 0.7 * found["um200.h_mean"][1]

    def test_the_inner_field_is_the_middle_96_px(self):
        picture = tissue(192, 16)
        picture[48:60, 48:144] = 255  # its first 12 rows
        picture[:, :48] = 255
        found = describe(picture[None])
        assert found["um100.unstained"][0] == pytest.approx(12 / 96)
        assert found["um200.unstained"][0] == pytest.approx((12 * 96 + 192 * 48) / 192**2)

    def test_fibres_have_a_direction_and_nuclei_have_none(self):
        stripes = np.where((np.arange(192) % 12 < 6)[:, None, None], STROMA, NUCLEUS).astype(np.uint8)
        found = describe(patches_of(np.broadcast_to(stripes, (192, 192, 3)), tissue(192, 16)))
        # in stripes only one gradient is not 0 (but for the unfilled rim of the map)
        np.testing.assert_allclose(found["um200.h_fibre_field"][0], 1, atol=1e-4)
        assert found["um200.h_fibre_field"][1] < 0.05

    def test_variation_is_found_at_its_scale(self):
        # checks of 2 px: means of 2 x 2 px keep them whole, of 4 x 4 px lose them: all variation is between 2 and 4 µm
        checks = np.indices((192, 192)) // 2
        picture = np.where((checks.sum(axis=0) % 2)[..., None], NUCLEUS, STROMA).astype(np.uint8)
        found = describe(picture[None])
        sd = found["um200.h_sd"][0]
        bands = [found[f"um200.h_band{um}"][0] for um in (1, 2, 4, 8)]
        np.testing.assert_allclose(bands, [0, sd, 0, 0], atol=2e-3)
        assert sd == pytest.approx(0.5, abs=0.01)  # the section's range is 0 to 1

    def test_local_binary_patterns(self):
        kinds = hed_texture._uniform_kinds()
        assert kinds.shape == (256, 10)
        assert (kinds.sum(axis=1) == 1).all()
        assert kinds.sum(axis=0).tolist() == [1, 8, 8, 8, 8, 8, 8, 8, 1, 198]  # Ojala: 58 uniform patterns
        assert kinds[0b11000001].argmax() == 3  # an arc over the end of the ring
        found = describe(patches_of(np.full((192, 192, 3), STROMA, np.uint8)))
        assert found["um200.lbp1_8"][0] == 1  # no neighbour is darker than the centre

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
        found = []
        for um_per_px, picture in pictures.items():
            xy = np.array([[150.0, 150.0]]) / um_per_px
            spots = section(tmp_path, picture, xy, um_per_px=um_per_px)
            one = encoders.embed_section(spots, "hed", {"model": "hed_texture"})
            found.append(one[:, ["um200.h_mean", "um200.nuclei_per_1000um2", "um200.nuclei_distance_um"]].X[0])
        np.testing.assert_allclose(found[0], found[1], rtol=0.05)

    def test_blank_section(self):
        found = describe(np.full((2, 192, 192, 3), 255, np.uint8))
        assert found["um200.unstained"].tolist() == [1, 1]
        assert found["um200.nuclei_per_1000um2"].tolist() == [0, 0]
        assert all(np.isfinite(values).all() for values in found.values())
