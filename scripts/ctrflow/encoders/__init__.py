"""Patch encoders, one file each: H&E patches of a section -> one vector per spot.

A module here that has a `MODEL` is an encoder. It imports numpy only and holds

- `MODEL`: what `model` says in the configuration, "name" or "name:<argument>"
- `OPTIONS`: the names of its options besides `model` and `device`, which the workflow gives to every encoder
- `build(options, threads) -> Encoder`
- `access(options) -> str | None`, where it needs weights: None if they can be had, else what is wrong and the cure
"""

import importlib
import logging
import math
import pkgutil
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np

from ctrflow import image
from ctrflow.errors import InputError
from ctrflow.logs import progress

logger = logging.getLogger("ctrflow")

Encode = Callable[[np.ndarray], np.ndarray]  # uint8 n x px x px x 3 -> float32 n x dim

PRECISIONS = ("auto", "fp32", "fp16", "bf16")
CHANNEL_ORDERS = ("rgb", "bgr")

_SAMPLE = 64  # patches an encoder may look at to learn a section's stains
_LEAST_UM = 55.0  # a spot of Visium: a bin of Visium HD is narrower than anything an encoder can see


@dataclass(frozen=True)
class Encoder:
    """A ready encoder.

    Attributes
    ----------
    patch_um : side of the square it sees, µm, or the sides of several; None: as wide as a spot, but at least 55 µm
    patch_px : side of the patches it takes
    digest : of the weights, or of the code where there are none
    for_section : takes a function that gives some patches of the section, spread over it, and returns the encoding
        function for this section. Only an encoder that adapts to the section's stains calls it.
    features : names of the dimensions, where they have any
    precision : in which it computes: fp32, fp16 or bf16
    batch : patches to give it at a time
    params : numbers of its network, frozen; none without a network
    """

    patch_um: float | tuple[float, ...] | None
    patch_px: int
    digest: str
    for_section: Callable[[Callable[[], np.ndarray]], Encode]
    features: tuple[str, ...] | None = None
    precision: str = "fp32"
    batch: int = 64
    params: int = 0


def names() -> list[str]:
    """What `model` may say."""
    return sorted(module.MODEL for module in _modules())


def load(model: str):
    """The module of an encoder; `model` is as the configuration gives it ("hed_texture", "timm:resnet50").

    Raises
    ------
    InputError
        if there is none, listing the valid ones.
    """
    kind, _, argument = str(model).partition(":")
    for module in _modules():
        name, _, wants = module.MODEL.partition(":")
        if name == kind and bool(wants) == bool(argument):
            return module
    raise InputError(f"no encoder {model!r}; correct `model` in the configuration, one of: {', '.join(names())}")


def build(encoder_id: str, options: dict, threads: int = 1) -> Encoder:
    """Build an encoder from its options in the configuration (`model`, `device` and what its module's `OPTIONS` names).

    Raises
    ------
    InputError
        if the model is unknown, an option is unknown or out of range, or weights are missing or wrong.
    """
    try:
        module = _checked_module(options)
        return module.build(options | {"patch_um": _fields_um(options)}, threads)
    except InputError as error:
        raise InputError(f"encoder {encoder_id}: {error}") from error


def check(encoder_id: str, options: dict) -> None:
    """Refuse an unknown model or option and local weights that are not there, before anything is built.

    Raises
    ------
    InputError
        naming the encoder of the configuration, and the cure.
    """
    from pathlib import Path

    try:
        _checked_module(options)
    except InputError as error:
        raise InputError(f"encoder {encoder_id}: {error}") from error
    weights = options.get("weights") or ""
    if weights not in ("", "hub", "random") and not Path(weights).is_file():
        raise InputError(f"encoder {encoder_id}: no weights at {weights}; correct the path, or use `weights: hub`")


def access(options: dict) -> str | None:
    """None if the weights of an encoder can be had, else what is wrong and the cure.

    Takes a few seconds at most and downloads nothing: a local file is looked at, the hub is asked. `options` are those
    of the configuration. Never raises for what a user can put right.
    """
    try:
        module = _checked_module(options)
        return module.access(options) if hasattr(module, "access") else None
    except InputError as error:
        return str(error)


def is_network(options: dict) -> bool:
    """Whether a configured encoder is a neural network: it has weights, and gains from a GPU."""
    return "weights" in load(options["model"]).OPTIONS


def module_name(options: dict) -> str:
    """The name of the module behind a configured encoder."""
    return load(options["model"]).__name__.rpartition(".")[2]


def embed_section(spots, encoder_id: str, options: dict, batch: int | None = None, threads: int = 1):
    """Embed the H&E around every spot of a section.

    Squares are centred on the spot and as wide as the encoder's `patch_um` says, or its `crop_px`, in full-resolution
    px. Where it says nothing, they are as wide as the section's `spot_um`, but at least 55 µm: a bin of Visium HD is
    narrower than anything an encoder can see. Several widths are several fields of view: their features lie side by
    side in the order of `patch_um`.

    Parameters
    ----------
    spots : AnnData
        as in spots.h5ad: `obsm["spatial"]` (x, y) in full-resolution px and `uns["section"]`
    encoder_id : name of the encoder in the configuration
    options : its options there
    batch : spots encoded at a time; None: as the encoder has it
    threads : CPU threads of a neural encoder

    Returns
    -------
    AnnData : X float32, spots x dim, `obs_names` those of `spots`, `var_names` the encoder's own or `<id>_<i>`, with
        the field where `patch_um` was given: `<id>_um100_<i>`; `uns["encoder"]`: id, digest, patch_um (list, µm),
        patch_px, padded (how many spots have a patch that crossed the border of the image), precision, params,
        channel_order (in which the encoder was given the colours); `crop_px` where that was given

    Raises
    ------
    InputError
        if the section has no image or no scale, the image cannot be read, spots lie outside it, or the encoder's
        options are wrong.
    """
    section = spots.uns["section"]
    um_per_px, image_scale = _scales(section, encoder_id)
    encoder = build(encoder_id, options, threads)
    crop_px = options.get("crop_px")
    fields_um = [crop_px * um_per_px] if crop_px else _widths_um(encoder, section)
    sides_px = [um / um_per_px * image_scale for um in fields_um]
    with image.open_image(section["image"]) as slide:
        centres_px = np.asarray(spots.obsm["spatial"], np.float64) * image_scale
        image.require_inside(centres_px, slide, spots.obs_names)
        for um, side_px in zip(fields_um, sides_px, strict=True):
            if side_px < encoder.patch_px / 2:
                text = "section %s: the image has %.2f µm/px, encoder %s asks for %.2f; patches are enlarged"
                logger.warning(text, section["section"], um_per_px / image_scale, encoder_id, um / encoder.patch_px)
        values, padded = _embed(slide, centres_px, sides_px, encoder, batch or encoder.batch)
    text = "section %s: patches of %d of %d spots cross the border of the image"
    logger.info(text, section["section"], padded, len(values))
    if values.ndim != 2:
        shape = " x ".join(map(str, values.shape[1:]))
        raise InputError(f"encoder {encoder_id}: gives {shape} values a patch, not one vector; set its pooling")
    if not np.isfinite(values).all():
        cure = "its weights are damaged" if encoder.precision == "fp32" else "give precision: fp32"
        raise InputError(f"encoder {encoder_id}: values that are not finite in {encoder.precision}; {cure}")
    facts = {
        "id": encoder_id,
        "digest": encoder.digest,
        "patch_um": fields_um,
        "patch_px": encoder.patch_px,
        "padded": padded,
        "precision": encoder.precision,
        "params": encoder.params,
        "channel_order": options.get("channel_order", "rgb"),
    } | ({"crop_px": crop_px} if crop_px else {})
    return _annotated(values, spots.obs_names, encoder, facts)


def _checked_module(options: dict):
    """The module of an encoder; it takes all of the options, and those it shares with others are in range."""
    if "model" not in options:
        raise InputError(f"no `model`; give one of: {', '.join(names())}")
    module = load(options["model"])
    unknown = sorted(set(options) - {"model", "device", *module.OPTIONS})
    if unknown:
        valid = ", ".join(module.OPTIONS) or "none"
        raise InputError(f"unknown option {', '.join(unknown)}; {module.MODEL} takes: {valid}")
    _fields_um(options)
    _check_crop(options)
    for name, valid in (("precision", PRECISIONS), ("channel_order", CHANNEL_ORDERS)):
        if options.get(name, valid[0]) not in valid:
            raise InputError(f"{name} is {options[name]!r}; give one of: {', '.join(valid)}")
    return module


def _check_crop(options: dict) -> None:
    """`crop_px`, where it is given, is a whole number of pixels and stands alone."""
    side = options.get("crop_px")
    if side is None:
        return
    if not isinstance(side, int) or isinstance(side, bool) or side < 1:
        raise InputError(f"crop_px is {side!r}; give a whole number of full-resolution pixels, or leave it out")
    if options.get("patch_um") is not None:
        raise InputError("both patch_um and crop_px are given; keep one: the width of a patch in µm or in pixels")


def _fields_um(options: dict) -> tuple[float, ...] | None:
    """`patch_um` of the options as a tuple; None where it is left out."""
    given = options.get("patch_um")
    if given is None:
        return None
    widths = given if isinstance(given, list | tuple) else [given]
    numbers = [um for um in widths if isinstance(um, int | float) and not isinstance(um, bool) and 0 < um < math.inf]
    if not widths or len(numbers) < len(widths) or len(set(numbers)) < len(numbers):
        raise InputError(f"patch_um is {given!r}; give a length in µm or a list of different ones, or leave it out")
    return tuple(map(float, numbers))


def _widths_um(encoder: Encoder, section: dict) -> list[float]:
    """The widths of the fields of view in a section, µm."""
    if encoder.patch_um is not None:
        return np.atleast_1d(encoder.patch_um).astype(float).tolist()
    spot_um = image.positive(section, "spot_um")
    if spot_um < _LEAST_UM:
        logger.info("section %s: spots of %g µm, patches of %g µm", section["section"], spot_um, _LEAST_UM)
    return [max(spot_um, _LEAST_UM)]


def _modules() -> list:
    found = sorted(name for _, name, _ in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in found]
    return [module for module in modules if hasattr(module, "MODEL")]


def _scales(section: dict, encoder_id: str) -> tuple[float, float]:
    """`um_per_px` and `image_scale` of a section that has an image."""
    name = section["section"]
    if not section.get("image"):
        raise InputError(
            f"section {name}: no image, so encoder {encoder_id} has nothing to look at; "
            "fill column `image` of the section sheet, or use encoder `none`"
        )
    return image.scales(section)


def _embed(slide, centres_px: np.ndarray, sides_px: list[float], encoder: Encoder, batch: int) -> tuple:
    """Vectors, spots x dim, and of how many spots a patch was padded; one pass over the spots, all fields together."""

    def sample() -> np.ndarray:
        rows = np.unique(np.linspace(0, len(centres_px) - 1, min(_SAMPLE, len(centres_px))).astype(int))
        return image.cut_patches(slide, centres_px[rows], sides_px[0], encoder.patch_px)[0]

    encode = encoder.for_section(sample)
    order = image.reading_order(centres_px, max(sides_px))
    values, padded = None, 0
    with ExitStack() as stack:  # closed also after an error: streams read ahead
        streams = [image.stream_patches(slide, centres_px[order], side, encoder.patch_px, batch) for side in sides_px]
        for stream in streams:
            stack.enter_context(closing(stream))
        batches = zip(*streams, strict=True)
        for fields in progress(batches, len(centres_px), "spots", size=lambda fields: len(fields[0][1])):
            part = np.concatenate([encode(patches) for _, patches, _ in fields], axis=1)
            if values is None:
                values = np.empty((len(centres_px), *part.shape[1:]), np.float32)
            values[order[fields[0][0]]] = part
            padded += int(np.any([crossed for _, _, crossed in fields], axis=0).sum())
    return values, padded


def _annotated(values: np.ndarray, obs_names, encoder: Encoder, facts: dict):
    import anndata
    import pandas as pd

    name = facts["id"]
    stems = [name] if encoder.patch_um is None else [f"{name}_um{um:g}" for um in facts["patch_um"]]
    dim = values.shape[1] // len(stems)
    features = encoder.features or [f"{stem}_{i}" for stem in stems for i in range(dim)]
    embedding = anndata.AnnData(values, obs=pd.DataFrame(index=obs_names), var=pd.DataFrame(index=list(features)))
    embedding.uns["encoder"] = facts
    return embedding
