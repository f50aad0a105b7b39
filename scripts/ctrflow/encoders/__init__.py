"""Patch encoders, one file each: H&E patches of a section -> one vector per spot.

A module here is an encoder. It imports numpy only and holds

- `MODEL`: what `model` says in the configuration, "name" or "name:<argument>"
- `OPTIONS`: the names of its options besides `model` and `device`, which the workflow gives to every encoder
- `build(options, threads) -> Encoder`
"""

import importlib
import logging
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ctrflow import image
from ctrflow.errors import InputError
from ctrflow.logs import progress

logger = logging.getLogger("ctrflow")

Encode = Callable[[np.ndarray], np.ndarray]  # uint8 n x px x px x 3 -> float32 n x dim

_SAMPLE = 64  # patches an encoder may look at to learn a section's stains


@dataclass(frozen=True)
class Encoder:
    """A ready encoder.

    Attributes
    ----------
    patch_um : side of the square it sees, µm; None: as wide as a spot
    patch_px : side of the patches it takes
    digest : of the weights, or of the code where there are none
    for_section : takes a function that gives some patches of the section, spread over it, and returns the encoding
        function for this section. Only an encoder that adapts to the section's stains calls it.
    features : names of the dimensions, where they have any
    """

    patch_um: float | None
    patch_px: int
    digest: str
    for_section: Callable[[Callable[[], np.ndarray]], Encode]
    features: tuple[str, ...] | None = None


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
    module = _checked_module(encoder_id, options)
    patch_um = options.get("patch_um")
    if patch_um is not None and not (isinstance(patch_um, int | float) and 0 < patch_um < math.inf):
        raise InputError(f"encoder {encoder_id}: patch_um is {patch_um!r}; give a length in µm, or leave it out")
    try:
        return module.build(options, threads)
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

    _checked_module(encoder_id, options)
    weights = options.get("weights", "")
    if weights not in ("", "hub", "random") and not Path(weights).is_file():
        raise InputError(f"encoder {encoder_id}: no weights at {weights}; correct the path, or use `weights: hub`")


def module_name(options: dict) -> str:
    """The name of the module behind a configured encoder."""
    return load(options["model"]).__name__.rpartition(".")[2]


def embed_section(spots, encoder_id: str, options: dict, batch: int = 64, threads: int = 1):
    """Embed the H&E patch around every spot of a section.

    The square is `patch_um` wide (the encoder's, else the section's `spot_um`) and centred on the spot.

    Parameters
    ----------
    spots : AnnData
        as in spots.h5ad: `obsm["spatial"]` (x, y) in full-resolution px and `uns["section"]`
    encoder_id : name of the encoder in the configuration
    options : its options there
    batch : patches encoded at a time
    threads : CPU threads of a neural encoder

    Returns
    -------
    AnnData : X float32, spots x dim, `obs_names` those of `spots`; `uns["encoder"]`: id, digest, patch_um, patch_px,
        padded (how many patches crossed the border of the image)

    Raises
    ------
    InputError
        if the section has no image or no scale, the image cannot be read, spots lie outside it, or the encoder's
        options are wrong.
    """
    section = spots.uns["section"]
    um_per_px, image_scale = _scales(section, encoder_id)
    encoder = build(encoder_id, options, threads)
    patch_um = float(encoder.patch_um if encoder.patch_um is not None else _spot_um(section, encoder_id))
    side_px = patch_um / um_per_px * image_scale
    with image.open_image(section["image"]) as slide:
        centres_px = np.asarray(spots.obsm["spatial"], np.float64) * image_scale
        image.require_inside(centres_px, slide, spots.obs_names, slide.path)
        if side_px < encoder.patch_px / 2:
            text = "section %s: the image has %.2f µm/px, encoder %s asks for %.2f; patches are enlarged"
            logger.warning(text, section["section"], um_per_px / image_scale, encoder_id, patch_um / encoder.patch_px)
        values, padded = _embed(slide, centres_px, side_px, encoder, batch)
    logger.info("section %s: %d of %d patches cross the border of the image", section["section"], padded, len(values))
    if values.ndim != 2:
        shape = " x ".join(map(str, values.shape[1:]))
        raise InputError(f"encoder {encoder_id}: gives {shape} values a patch, not one vector; set its pooling")
    if not np.isfinite(values).all():
        raise InputError(f"encoder {encoder_id}: values that are not finite; its weights are damaged")
    return _annotated(values, spots.obs_names, encoder, encoder_id, patch_um, padded)


def _checked_module(encoder_id: str, options: dict):
    """The module of an encoder; it takes all of the options."""
    if "model" not in options:
        raise InputError(f"encoder {encoder_id}: no `model`; give one of: {', '.join(names())}")
    try:
        module = load(options["model"])
    except InputError as error:
        raise InputError(f"encoder {encoder_id}: {error}") from error
    unknown = sorted(set(options) - {"model", "device", *module.OPTIONS})
    if unknown:
        valid = ", ".join(module.OPTIONS) or "none"
        raise InputError(f"encoder {encoder_id}: unknown option {', '.join(unknown)}; {module.MODEL} takes: {valid}")
    return module


def _modules() -> list:
    found = [name for _, name, _ in pkgutil.iter_modules(__path__)]
    return [importlib.import_module(f"{__name__}.{name}") for name in sorted(found)]


def _scales(section: dict, encoder_id: str) -> tuple[float, float]:
    """`um_per_px` and `image_scale` of a section that has an image."""
    name = section["section"]
    if not section.get("image"):
        raise InputError(
            f"section {name}: no image, so encoder {encoder_id} has nothing to look at; "
            "fill column `image` of the section sheet, or use encoder `none`"
        )
    return _positive(section, "um_per_px"), _positive(section, "image_scale")


def _spot_um(section: dict, encoder_id: str) -> float:
    if section.get("spot_um") is None:
        raise InputError(
            f"section {section['section']}: no spot_um, which sets the patch of encoder {encoder_id}; "
            "fill column `spot_um` of the section sheet, or give the encoder `patch_um`"
        )
    return _positive(section, "spot_um")


def _positive(section: dict, key: str) -> float:
    value = float(section.get(key, math.nan))
    if not 0 < value < math.inf:
        raise InputError(f"section {section['section']}: {key} is {value:g}; fill column `{key}` of the section sheet")
    return value


def _embed(slide, centres_px: np.ndarray, side_px: float, encoder: Encoder, batch: int) -> tuple[np.ndarray, int]:
    """Vectors, spots x dim, and how many patches were padded."""

    def sample() -> np.ndarray:
        rows = np.unique(np.linspace(0, len(centres_px) - 1, min(_SAMPLE, len(centres_px))).astype(int))
        return image.cut_patches(slide, centres_px[rows], side_px, encoder.patch_px)[0]

    encode = encoder.for_section(sample)
    values, padded = [], 0
    batches = image.stream_patches(slide, centres_px, side_px, encoder.patch_px, batch)
    for _, patches, crossed in progress(batches, len(centres_px), "spots", size=lambda item: len(item[1])):
        values.append(encode(patches))
        padded += int(crossed.sum())
    return np.concatenate(values).astype(np.float32, copy=False), padded


def _annotated(values: np.ndarray, obs_names, encoder: Encoder, encoder_id: str, patch_um: float, padded: int):
    import anndata
    import pandas as pd

    features = encoder.features or tuple(f"{encoder_id}_{i}" for i in range(values.shape[1]))
    embedding = anndata.AnnData(values, obs=pd.DataFrame(index=obs_names), var=pd.DataFrame(index=list(features)))
    embedding.uns["encoder"] = {
        "id": encoder_id,
        "digest": encoder.digest,
        "patch_um": patch_um,
        "patch_px": encoder.patch_px,
        "padded": padded,
    }
    return embedding
