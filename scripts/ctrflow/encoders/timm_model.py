"""Any image model of timm: ImageNet networks, and pathology encoders published for it (UNI and others).

Options: `weights` (a .safetensors, .bin, .pt or .pth file; `hub`; or `random`, for tests), `patch_um`, `model_args`
(passed to `timm.create_model`), `device` (auto, cpu or cuda).
"""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np

from ctrflow.encoders import Encoder
from ctrflow.errors import InputError, first_few

logger = logging.getLogger("ctrflow")

MODEL = "timm:<model name>"
OPTIONS = ("weights", "patch_um", "model_args")

_HUB = "hf-hub:"
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# Hub models that can be built without their config.json: name on the hub -> architecture and preprocessing.
_PUBLISHED = {
    # Chen et al., Nat Med 2024; https://huggingface.co/MahmoodLab/UNI: ViT-L/16, 224 px, ImageNet mean and std.
    "mahmoodlab/uni": {
        "architecture": "vit_large_patch16_224",
        "pretrained_cfg": {"input_size": (3, 224, 224), "interpolation": "bilinear", "crop_pct": 1.0, **_IMAGENET},
    },
}


def build(options: dict, threads: int = 1) -> Encoder:
    """A timm model without its classifier, in evaluation mode, float32.

    Input size, mean and standard deviation are those the model was pretrained with. The digest is the SHA-256 of names,
    types, shapes and values of the weights (the same for a file and for the hub), or "random".

    Raises
    ------
    InputError
        if the model is unknown, its weights are missing, unreachable or of another model, or the device is not there.
    """
    import torch

    torch.set_num_threads(threads)
    device = _device(options.get("device", "auto"))
    model = create(options)
    mean, std, side_px = preprocessing(model, options)
    digest = "random" if options["weights"] == "random" else _digest(model)
    model = model.eval().to(device, memory_format=torch.channels_last)  # as patches lie in memory; faster on CPUs
    mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(std, device=device).view(1, 3, 1, 1)
    if device == "cuda":  # float32 as on the CPU, not TF32
        torch.backends.cudnn.allow_tf32 = False

    @torch.inference_mode()
    def encode(patches: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(patches).to(device).permute(0, 3, 1, 2).float().div_(255)
        return model(pixels.sub_(mean).div_(std)).float().cpu().numpy()

    logger.info("%s on %s, %d px patches, weights %s", options["model"], device, side_px, digest[:12])
    return Encoder(options.get("patch_um"), side_px, digest, for_section=lambda sample: encode)


def create(options: dict):
    """The torch module of `options`, with its weights, on the CPU."""
    import torch

    name = options["model"].partition(":")[2]
    weights = options.get("weights")
    if not weights:
        raise InputError("no `weights`; give a file, `hub` (download) or `random` (tests)")
    model_args = options.get("model_args") or {}
    if weights == "hub":
        return _from_hub(name, model_args)
    if weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return _architecture(name, model_args)
    path = Path(weights)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; correct `weights` in the configuration")
    model = _architecture(name, model_args, path)
    _load(model, _read_weights(path), path, options["model"])
    return model


def preprocessing(model, options: dict) -> tuple[tuple, tuple, int]:
    """Mean and standard deviation (of RGB scaled to 0..1) and side in px of the input the model was pretrained with."""
    import timm

    size = {"img_size": (options.get("model_args") or {}).get("img_size")}
    config = timm.data.resolve_data_config(size, model=model)
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        name = options["model"]
        raise InputError(f"{name}: takes {channels} x {height} x {width} px, not a square RGB patch; choose another")
    return config["mean"], config["std"], height


def _device(name: str) -> str:
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {name!r}; give auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda, but torch sees no GPU; give device: auto, or run on a GPU node")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _architecture(name: str, model_args: dict, weights: Path | None = None):
    """The model with random weights. A hub name is resolved without the network."""
    import timm

    config = {}
    if name.startswith(_HUB):
        config = _hub_config(name, weights)
        name = config["architecture"]
        model_args = {**config.get("model_args", {}), **model_args}
    if not timm.is_model(name):
        raise InputError(f"timm has no model {name!r}{_close_matches(name)}; `timm.list_models()` gives all")
    overlay = config.get("pretrained_cfg")
    arguments = {**model_args, "num_classes": 0}
    try:
        return timm.create_model(name, pretrained=False, pretrained_cfg_overlay=overlay, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"timm cannot build {name} with model_args {model_args}: {error}") from error


def _hub_config(name: str, weights: Path | None) -> dict:
    """Architecture and preprocessing of a hub model: config.json beside its weights, else what we know of it."""
    repository = name.removeprefix(_HUB).partition("@")[0]
    beside = weights.with_name("config.json") if weights else None
    if beside and beside.is_file():
        try:
            config = json.loads(beside.read_text(encoding="utf-8"))
            # Old configurations hold the preprocessing at the top level, as timm itself allows.
            preprocessing = config.get("pretrained_cfg", config)
            keys = ("input_size", "mean", "std", "interpolation", "crop_pct", "classifier")
            overlay = {key: preprocessing[key] for key in keys if key in preprocessing}
            return {**config, "architecture": config["architecture"], "pretrained_cfg": overlay}
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{beside}: not a timm model configuration ({error}); download it again") from error
    known = _PUBLISHED.get(repository.lower())
    if known is None:
        raise InputError(
            f"timm:{name}: what it is built of is only known from its config.json; put that file beside the weights, "
            "or name the architecture instead (model: timm:<architecture>)"
        )
    return known


def _close_matches(name: str) -> str:
    import difflib

    import timm

    stem = name.partition(".")[0]
    every = timm.list_models()
    close = difflib.get_close_matches(stem, every, n=5, cutoff=0.6) or [one for one in every if stem in one][:5]
    return f" (close: {', '.join(close)})" if close else ""


def _from_hub(name: str, model_args: dict):
    """The pretrained model, downloaded through timm."""
    import timm
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    if not name.startswith(_HUB) and not timm.is_model(name):
        raise InputError(
            f"timm has no model {name!r}{_close_matches(name)}; `timm.list_models(pretrained=True)` gives all"
        )
    page = (
        f"https://huggingface.co/{name.removeprefix(_HUB)}" if name.startswith(_HUB) else "https://huggingface.co/timm"
    )
    by_hand = "or download the file elsewhere and give `weights: <path>`"
    logging.getLogger("huggingface_hub").handlers.clear()  # it would say everything twice
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, **model_args)
    except (GatedRepoError, RepositoryNotFoundError) as error:  # without a token a gated repository may look missing
        raise InputError(
            f"timm:{name}: access refused, the weights are gated or the name is wrong; request access on {page} and "
            f"set the environment variable HF_TOKEN to a token of that account, {by_hand}"
        ) from error
    except (OSError, EntryNotFoundError) as error:
        raise InputError(
            f"timm:{name}: weights cannot be downloaded ({_first_line(error)}); check the network, {by_hand}. "
            f"If they are gated, request access on {page} and set HF_TOKEN"
        ) from error
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"timm cannot load {name} with model_args {model_args}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _read_weights(path: Path) -> dict:
    from pickle import UnpicklingError

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path}: not a whole safetensors file ({error}); download it again") from error
    if path.suffix not in (".bin", ".pt", ".pth"):
        raise InputError(f"{path}: weights are a .safetensors, .bin, .pt or .pth file")
    damaged = f"{path}: not a whole file of torch tensors; download it again"
    try:  # weights_only: tensors are read, no code is run
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch would advise to switch the guard off
        raise InputError(f"{damaged}, or save its tensors as .safetensors") from error
    except (RuntimeError, EOFError, ValueError, LookupError, OSError) as error:
        raise InputError(f"{damaged} ({_first_line(error)})") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(
            f"{path}: not a plain state dict (names to tensors); save `model.state_dict()` as .safetensors"
        )
    return state


def _load(model, state: dict, path: Path, name: str) -> None:
    """Put weights into the model; a classifier of theirs is left out, all other names must agree."""
    classifier = model.pretrained_cfg.get("classifier") or ()
    classifier = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    heads = tuple(f"{one}." for one in classifier)
    state = {key: value for key, value in state.items() if not key.startswith(heads)}
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes
        wrong = [line.strip() for line in str(error).splitlines()[1:]]
        raise InputError(f"{path}: weights of another shape than {name}: {first_few(wrong, 2)}") from error
    if result.missing_keys or result.unexpected_keys:
        raise InputError(
            f"{path}: not the weights of {name} under timm's names: {len(result.missing_keys)} missing "
            f"({first_few(result.missing_keys, 3)}), {len(result.unexpected_keys)} not expected "
            f"({first_few(result.unexpected_keys, 3)}); check `model`, `model_args` and `weights`"
        )


def _digest(model) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
