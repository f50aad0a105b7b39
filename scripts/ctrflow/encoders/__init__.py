"""Patch encoders, one file each: H&E patches of a section -> one vector per spot.

A module here that has a `MODEL` is an encoder. At import it needs numpy only. It defines

- `MODEL`: the value of `model` in the configuration, "name" or "name:<argument>"
- `OPTIONS`: the names of its options besides `model` and `device`, which every encoder gets
- `build(options, threads) -> Encoder`
- `access(options) -> str | None`, if it needs weights: None if they are available, else the problem and its cure
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
NAMED_WEIGHTS = ("hub", "package", "random")  # values of `weights` that are no path

_SAMPLE = 64  # patches from which an encoder may learn a section's stains
_LEAST_UM = 55.0  # a Visium spot; a bin of Visium HD is too narrow for an encoder


@dataclass(frozen=True)
class Encoder:
    """A ready encoder.

    Attributes
    ----------
    patch_um : side of the field of view, µm, or the sides of several; None: spot width, but at least 55 µm
    patch_px : side of its input patches
    digest : of the weights, or of the code if there are none
    for_section : returns the encoding function for a section, given a function that samples patches of the section.
        Only an encoder that adapts to the section's stains calls that function.
    features : names of the dimensions, if they have any
    precision : fp32, fp16 or bf16
    batch : patches per call
    params : number of (frozen) network parameters; 0 without a network
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
    """The valid values of `model`."""
    return sorted(module.MODEL for module in _modules())


def load(model: str):
    """The module of an encoder; `model` as in the configuration ("hed_texture", "timm:resnet50").

    Raises
    ------
    InputError
        if it is unknown, listing the valid ones.
    """
    kind, _, argument = str(model).partition(":")
    for module in _modules():
        name, _, wants = module.MODEL.partition(":")
        if name == kind and bool(wants) == bool(argument):
            return module
    raise InputError(f"unknown encoder {model!r}; set `model` in the configuration to one of: {', '.join(names())}")


def build(encoder_id: str, options: dict, threads: int = 1) -> Encoder:
    """Build an encoder from its options in the configuration (`model`, `device` and the `OPTIONS` of its module).

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
    """Check model, options and local weights without building anything.

    Raises
    ------
    InputError
        for an unknown model or option, or missing local weights; names the encoder and the cure.
    """
    from pathlib import Path

    try:
        _checked_module(options)
    except InputError as error:
        raise InputError(f"encoder {encoder_id}: {error}") from error
    weights = options.get("weights") or ""
    if weights not in ("", *NAMED_WEIGHTS) and not Path(weights).is_file():
        raise InputError(f"encoder {encoder_id}: no weights file {weights}; correct the path, or use `weights: hub`")


def access(options: dict) -> str | None:
    """None if the weights of an encoder are available, else the problem and its cure.

    Takes a few seconds at most and downloads nothing: a local file is checked, the hub is queried. `options` as in the
    configuration. User errors are returned, not raised.
    """
    try:
        module = _checked_module(options)
        return module.access(options) if hasattr(module, "access") else None
    except InputError as error:
        return str(error)


def is_network(options: dict) -> bool:
    """Whether a configured encoder is a neural network: it has weights and benefits from a GPU."""
    return "weights" in load(options["model"]).OPTIONS


def module_name(options: dict) -> str:
    """The module name of a configured encoder."""
    return load(options["model"]).__name__.rpartition(".")[2]


def embed_section(spots, encoder_id: str, options: dict, batch: int | None = None, threads: int = 1):
    """Embed the H&E around every spot of a section.

    Patches are squares centred on the spot, `patch_um` µm or `crop_px` full-resolution px wide. By default they are
    as wide as the section's `spot_um`, but at least 55 µm, as a bin of Visium HD is too narrow for an encoder. With
    several widths (fields of view), the features are concatenated in the order of `patch_um`.

    Parameters
    ----------
    spots : AnnData
        as in spots.h5ad: `obsm["spatial"]` (x, y) in full-resolution px and `uns["section"]`
    encoder_id : name of the encoder in the configuration
    options : its options there
    batch : spots encoded at a time; None: the encoder's default
    threads : CPU threads of a neural encoder

    Returns
    -------
    AnnData : X float32, spots x dim, `obs_names` those of `spots`, `var_names` the encoder's own or `<id>_<i>`, with
        the field if `patch_um` is given: `<id>_um100_<i>`; `uns["encoder"]`: id, digest, patch_um (list, µm),
        patch_px, padded (number of spots with a patch that crosses the border of the image), precision, params,
        channel_order (of the encoder's input); `crop_px` if given

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
                text = "section %s: the image has %.2f µm/px, encoder %s expects %.2f; patches are enlarged"
                logger.warning(text, section["section"], um_per_px / image_scale, encoder_id, um / encoder.patch_px)
        values, padded = _embed(slide, centres_px, sides_px, encoder, batch or encoder.batch)
    text = "section %s: patches of %d of %d spots cross the border of the image"
    logger.info(text, section["section"], padded, len(values))
    if values.ndim != 2:
        shape = " x ".join(map(str, values.shape[1:]))
        raise InputError(f"encoder {encoder_id}: output of {shape} values per patch, not one vector; set its pooling")
    if not np.isfinite(values).all():
        cure = "its weights are damaged" if encoder.precision == "fp32" else "set `precision: fp32`"
        raise InputError(f"encoder {encoder_id}: output is not finite in {encoder.precision}; {cure}")
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
    """The module of an encoder, after checking the names of its options and the values of those that all share."""
    if "model" not in options:
        raise InputError(f"no `model`; give one of: {', '.join(names())}")
    module = load(options["model"])
    unknown = sorted(set(options) - {"model", "device", *module.OPTIONS})
    if unknown:
        valid = ", ".join(module.OPTIONS) or "none"
        raise InputError(f"unknown option {', '.join(unknown)}; valid for {module.MODEL}: {valid}")
    _fields_um(options)
    _check_crop(options)
    for name, valid in (("precision", PRECISIONS), ("channel_order", CHANNEL_ORDERS)):
        if options.get(name, valid[0]) not in valid:
            raise InputError(f"{name} is {options[name]!r}; valid: {', '.join(valid)}")
    return module


def _check_crop(options: dict) -> None:
    """`crop_px` must be a positive integer, and not given together with `patch_um`."""
    side = options.get("crop_px")
    if side is None:
        return
    if not isinstance(side, int) or isinstance(side, bool) or side < 1:
        raise InputError(f"crop_px is {side!r}; give a whole number of full-resolution pixels, or leave it out")
    if options.get("patch_um") is not None:
        raise InputError("both patch_um and crop_px are given; keep one: the width of a patch in µm or in pixels")


def _fields_um(options: dict) -> tuple[float, ...] | None:
    """`patch_um` of the options as a tuple; None if it is not given."""
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
    names = sorted(name for _, name, _ in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return [module for module in modules if hasattr(module, "MODEL")]


def _scales(section: dict, encoder_id: str) -> tuple[float, float]:
    """`um_per_px` and `image_scale` of a section that has an image."""
    name = section["section"]
    if not section.get("image"):
        raise InputError(
            f"section {name}: no image for encoder {encoder_id}; fill column `image` of the section sheet, or use "
            "encoder `none`"
        )
    return image.scales(section)


def _embed(slide, centres_px: np.ndarray, sides_px: list[float], encoder: Encoder, batch: int) -> tuple:
    """Vectors, spots x dim, and the number of spots with a padded patch; one pass over the spots for all fields."""

    def sample() -> np.ndarray:
        rows = np.unique(np.linspace(0, len(centres_px) - 1, min(_SAMPLE, len(centres_px))).astype(int))
        return image.cut_patches(slide, centres_px[rows], sides_px[0], encoder.patch_px)[0]

    encode = encoder.for_section(sample)
    order = image.reading_order(centres_px, max(sides_px))
    values, padded = None, 0
    with ExitStack() as stack:  # closes the streams, which read ahead, also after an error
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
