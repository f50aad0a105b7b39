"""Any image model of timm: ImageNet networks and pathology encoders.

Options: those of every neural encoder (see `network`) and `model_args`, passed to `timm.create_model`.
"""

import json
from dataclasses import replace
from pathlib import Path

from ctrflow.encoders import Encoder, network, uni, uni2_h, weights
from ctrflow.errors import InputError

MODEL = "timm:<model name>"
OPTIONS = (*network.OPTIONS, "model_args")

_HUB = "hf-hub:"
# Hub models that can be built without their config.json.
_PUBLISHED = {one.NETWORK.source.repository.lower(): one.NETWORK for one in (uni, uni2_h)}


def build(options: dict, threads: int = 1) -> Encoder:
    """A timm model without its classifier, in evaluation mode.

    Input size, mean and standard deviation are those of pretraining. The digest is the SHA-256 of names, types, shapes
    and values of the weights (the same for a file and for the hub), or "random".

    Raises
    ------
    InputError
        if the model is unknown, its weights are missing, unreachable or of another model, or there is no such device.
    """
    place = network.settle(options)
    model = create(options)
    mean, std, side_px = preprocessing(model, options)
    return network.encoder(model, side_px, mean, std, options, place, threads)


def access(options: dict) -> str | None:
    """None if the weights in the options are available, else the problem and its cure; downloads nothing."""
    name = _name(options)
    where = _weights(options)
    source = _source(name) if where == weights.HUB else None
    if where == weights.HUB and (source is None or _cached(source)):
        return None
    return weights.access(source, where, options["model"])


def create(options: dict):
    """The torch module with its weights, on the CPU."""
    name = _name(options)
    where = _weights(options)
    model_args = options.get("model_args") or {}
    if where == weights.HUB:
        return _from_hub(name, model_args, options["model"])
    if where == weights.RANDOM:
        return network.random(*_architecture(name, model_args))
    path = weights.local(where)
    model = network.architecture(*_architecture(name, model_args, path))
    network.fill(model, weights.read(path), path, options["model"])
    return model


def preprocessing(model, options: dict) -> tuple[tuple, tuple, int]:
    """Mean and standard deviation (RGB scaled to 0..1) and side in px of the model's input in pretraining."""
    import timm

    size = {"img_size": (options.get("model_args") or {}).get("img_size")}
    config = timm.data.resolve_data_config(size, model=model)
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        name = options["model"]
        raise InputError(f"{name}: input of {channels} x {height} x {width} px, not a square RGB patch; choose another")
    return config["mean"], config["std"], height


def _name(options: dict) -> str:
    return options["model"].partition(":")[2]


def _weights(options: dict) -> str:
    if not options.get("weights"):
        raise InputError("no `weights`; give a file, `hub` (download) or `random` (tests)")
    return options["weights"]


def _architecture(name: str, model_args: dict, path: Path | None = None) -> tuple[str, dict, dict | None]:
    """timm's name, arguments and, for a hub model, preprocessing. Hub names are resolved offline."""
    import timm

    overlay = None
    if name.startswith(_HUB):
        config = _hub_config(name, path)
        name, overlay = config["architecture"], config["pretrained_cfg"]
        model_args = {**config.get("model_args", {}), **model_args}
    if not timm.is_model(name):
        raise InputError(f"timm has no model {name!r}{_close_matches(name)}; `timm.list_models()` gives all")
    return name, model_args, overlay


def _hub_config(name: str, path: Path | None) -> dict:
    """Architecture and preprocessing of a hub model: from config.json next to its weights, else built in."""
    beside = path.with_name("config.json") if path else None
    if beside and beside.is_file():
        try:
            config = json.loads(beside.read_text(encoding="utf-8"))
            # old configurations have the preprocessing at the top level, which timm accepts too
            given = config.get("pretrained_cfg", config)
            keys = ("input_size", "mean", "std", "interpolation", "crop_pct", "classifier")
            overlay = {key: given[key] for key in keys if key in given}
            return {**config, "architecture": config["architecture"], "pretrained_cfg": overlay}
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{beside}: not a timm model configuration ({error}); download it again") from error
    known = _PUBLISHED.get(name.removeprefix(_HUB).partition("@")[0].lower())
    if known is None:
        raise InputError(
            f"timm:{name}: its architecture is not known without its config.json; put that file next to the weights, "
            "or give the architecture instead (model: timm:<architecture>)"
        )
    overlay = {"input_size": (3, known.side_px, known.side_px), "mean": known.mean, "std": known.std}
    return {"architecture": known.architecture, "model_args": known.arguments, "pretrained_cfg": overlay}


def _close_matches(name: str) -> str:
    import difflib

    import timm

    stem = name.partition(".")[0]
    every = timm.list_models()
    close = difflib.get_close_matches(stem, every, n=5, cutoff=0.6) or [one for one in every if stem in one][:5]
    return f" (close: {', '.join(close)})" if close else ""


def _source(name: str) -> weights.Source | None:
    """A model's repository on the hub; None if timm gets the weights from elsewhere.

    The file is config.json, which every timm repository has, with the same access terms as the weights.
    """
    import timm

    if name.startswith(_HUB):
        repository, _, revision = name.removeprefix(_HUB).partition("@")
        return weights.Source(f"https://huggingface.co/{repository}", repository, revision or None, "config.json")
    if not timm.is_model(name):
        raise InputError(
            f"timm has no model {name!r}{_close_matches(name)}; `timm.list_models(pretrained=True)` gives all"
        )
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    return weights.Source("https://huggingface.co/timm", repository, None, "config.json") if repository else None


def _cached(source: weights.Source) -> bool:
    """Whether the hub's cache has the weights of the repository."""
    files = ("model.safetensors", "pytorch_model.bin")
    return any(weights.cached(replace(source, file=file)) for file in files)


def _from_hub(name: str, model_args: dict, model: str):
    """The pretrained model, downloaded through timm unless the hub's cache has it."""
    import timm
    from huggingface_hub.errors import HTTPError

    weights.quieten()
    source = _source(name)
    if source and not _cached(source):
        weights.ask_hub(source, model)
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, **network.with_layers(model_args))
    except (HTTPError, OSError) as error:
        raise weights.refusal(source or weights.Source("https://huggingface.co/timm"), model, error) from None
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        text = weights.first_line(error)
        raise InputError(f"timm cannot load {name} with model_args {model_args}: {text}; correct them") from error
