"""A neural encoder: a timm network, its weights, preprocessing and inference.

Options of every neural encoder:

- `weights`: a .safetensors, .bin, .pt or .pth file; `package`, a Python package in the environment; `hub`; or `random`,
  for tests
- `patch_um`: side of the patch in µm, or a list of sides: fields of view around the same centre, whose features are
  concatenated in that order. Default: the spot's width, but at least 55 µm.
- `crop_px`: instead of `patch_um`, side of the patch in full-resolution pixels, whatever their size. The published
  SpaCRD code cuts 224 px from its colorectal sections (METHODS.md S-18).
- `channel_order`: rgb or bgr; bgr swaps red and blue in the input, which is still normalised as RGB, as in the
  published SpaCRD code (S-17)
- `precision`: auto (bf16 if the GPU supports it, else fp16 on a GPU, fp32 on a CPU), fp32, fp16 or bf16. Features are
  always float32.

The GPU of a Mac (mps) computes in fp32 only. Some of torch's kernels for it gave wrong numbers without an error (issues
180984 and 188335 of pytorch: slices of channels_last, depthwise convolutions of several images). A network therefore
computes a few patches on the CPU too, and stays there if they differ.
"""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ctrflow.encoders import Encode, Encoder, weights
from ctrflow.errors import InputError, first_few
from ctrflow.machine import choose

logger = logging.getLogger("ctrflow")

OPTIONS = ("weights", "patch_um", "crop_px", "channel_order", "precision")

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

_CPU_BATCH = 32  # the best of 16, 32 and 64 on one thread; fixed, so that results do not depend on the machine
_GPU_BATCH = 256
_GPU_BYTES_PER_PATCH = 32 << 20  # initial estimate of the memory per patch
_MPS_DEVIATION = 1e-3  # from the CPU: fp32 makes 2e-6 and fp16 2e-3 (tests/bench/check_gpu.py), a wrong kernel 0.1
_TYPES = {"fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Network:
    """A published network.

    Attributes
    ----------
    name : value of `model` in the configuration
    architecture : timm's name
    dim : number of features
    side_px : side of its input
    mean, std : for normalising the input, RGB scaled to 0..1
    source : of its weights
    arguments : of `timm.create_model`
    adapt : converts the content of a published file to timm's state dict, given the model
    """

    name: str
    architecture: str
    dim: int
    side_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: weights.Source
    arguments: dict = field(default_factory=dict)
    adapt: Callable[[dict, object], dict] | None = None


def build(network: Network, options: dict, threads: int = 1) -> Encoder:
    """The encoder of a published network; `weights` defaults to `hub`.

    Raises
    ------
    InputError
        if weights are missing, unreachable or of another network, or the device or precision is not available.
    """
    place = settle(options)
    side_px = options.get("patch_px", network.side_px)
    return encoder(create(network, options), side_px, network.mean, network.std, options, place, threads)


def access(network: Network, options: dict) -> str | None:
    """None if the weights in the options are available, else the problem and its cure; downloads nothing."""
    return weights.access(network.source, options.get("weights") or weights.HUB, network.name)


def settle(options: dict) -> tuple[str, str]:
    """Device (cpu, cuda or mps) and precision (fp32, fp16 or bf16). Called before weights are fetched, which is slow.

    Raises
    ------
    InputError
        if the machine lacks what the options require.
    """
    import torch

    device = choose(options.get("device", "auto"))
    precision = options.get("precision", "auto")
    bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "mps" and precision in _TYPES:
        if options.get("device") == "mps":
            raise InputError(f"precision {precision} is not supported on mps; set `precision` to fp32 or auto")
        device = "cpu"
    if precision == "auto":
        return device, "fp32" if device != "cuda" else "bf16" if bf16 else "fp16"
    if precision == "bf16" and device == "cuda" and not bf16:
        raise InputError("precision bf16 is not supported by this GPU; set `precision` to fp16 or auto")
    return device, precision


def create(network: Network, options: dict):
    """The torch module of a published network with the weights from the options, on the CPU."""
    where = options.get("weights") or weights.HUB
    if where == weights.RANDOM:
        return random(network.architecture, network.arguments)
    path = weights.find(network.source, where, network.name)
    model = architecture(network.architecture, network.arguments)
    content = weights.read(path)
    fill(model, network.adapt(content, model) if network.adapt else content, path, network.name)
    return model


def random(name: str, arguments: dict, overlay: dict | None = None):
    """An untrained model with fixed random weights; does not change the caller's random state."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return architecture(name, arguments, overlay)


def architecture(name: str, arguments: dict, overlay: dict | None = None):
    """A timm model without its classifier.

    Parameters
    ----------
    name : timm's
    arguments : of `timm.create_model`; `mlp_layer` may be the name of a class of timm.layers
    overlay : replaces timm's preprocessing settings

    Raises
    ------
    InputError
        if timm rejects the arguments.
    """
    import timm

    arguments = with_layers(arguments)
    try:
        return timm.create_model(
            name, pretrained=False, pretrained_cfg_overlay=overlay, **{**arguments, "num_classes": 0}
        )
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"timm cannot build {name} with model_args {arguments}: {error}; correct them") from error


def with_layers(arguments: dict) -> dict:
    """Arguments of `timm.create_model` with the class for the name in `mlp_layer`; timm resolves other names."""
    import timm

    layer = arguments.get("mlp_layer")
    if not isinstance(layer, str):
        return arguments
    if not hasattr(timm.layers, layer):
        raise InputError(f"timm.layers has no {layer}; correct `mlp_layer` in `model_args`")
    return {**arguments, "mlp_layer": getattr(timm.layers, layer)}


def fill(model, state: dict, path: Path, name: str) -> None:
    """Load weights into a model; a classifier is dropped, all other names and shapes must match.

    Raises
    ------
    InputError
        if they do not, naming some of them.
    """
    import torch

    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise weights.not_plain(path)
    classifier = model.pretrained_cfg.get("classifier") or ()
    classifier = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    heads = tuple(f"{one}." for one in classifier)
    state = {key: value for key, value in state.items() if not key.startswith(heads)}
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes
        wrong = [line.strip() for line in str(error).splitlines()[1:]]
        raise InputError(f"{path}: weights do not have the shapes of {name}: {first_few(wrong, 2)}") from error
    if result.missing_keys or result.unexpected_keys:
        raise InputError(
            f"{path}: not the weights of {name} as timm names them: {len(result.missing_keys)} missing "
            f"({first_few(result.missing_keys, 3)}), {len(result.unexpected_keys)} unexpected "
            f"({first_few(result.unexpected_keys, 3)}); check `model`, `model_args` and `weights`"
        )


def encoder(model, side_px: int, mean, std, options: dict, place: tuple[str, str], threads: int) -> Encoder:
    """Make an encoder of a model with weights, given on the CPU.

    Parameters
    ----------
    side_px, mean, std : of its input, RGB scaled to 0..1
    options : as in the configuration
    place : device and precision, from `settle`
    threads : of a CPU
    """
    import torch

    torch.set_num_threads(threads)
    device, precision = place
    digest = "random" if options.get("weights") == weights.RANDOM else weights.digest(model)
    model = model.eval()
    if device == "mps" and (fault := _fault_on_mps(model, side_px)):
        if options.get("device") == "mps":
            raise InputError(f"the network cannot use mps: {fault}; set `device: cpu`")
        logger.warning("the GPU of this Mac is not used: %s", fault)
        device = "cpu"
    if device != "mps":
        try:
            model = model.to(device, memory_format=torch.channels_last)  # the layout of patches; faster on CPUs
        except torch.OutOfMemoryError as error:
            raise InputError("not enough GPU memory for the network; free some, or set `device: cpu`") from error
    mean, std = (torch.tensor(value).view(1, 3, 1, 1).to(device) for value in (mean, std))
    if device == "cuda":  # fp32 as on the CPU, not TF32
        torch.backends.cudnn.allow_tf32 = False
    swap = options.get("channel_order") == "bgr"
    arithmetic = nullcontext
    if precision in _TYPES:  # weights, and operations that need it, stay in fp32
        arithmetic = partial(torch.autocast, device, getattr(torch, _TYPES[precision]))

    @torch.inference_mode()
    def forward(patches: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(patches).to(device).permute(0, 3, 1, 2)
        if device == "mps":
            pixels = pixels.contiguous()
        pixels = (pixels.flip(1) if swap else pixels).float().div_(255)
        with arithmetic():
            features = model(pixels.sub_(mean).div_(std))
        return features.float().cpu().numpy()

    batch = gpu_batch(torch.cuda.mem_get_info()[0]) if device == "cuda" else _CPU_BATCH
    logger.info(
        "%s on %s in %s, %d px patches, %d at a time, weights %s",
        options["model"], device, precision, side_px, batch, digest[:12],
    )  # fmt: skip
    encode = by_chunks(forward, batch)
    params = sum(tensor.numel() for tensor in model.parameters())
    return Encoder(
        options.get("patch_um"), side_px, digest, lambda sample: encode, precision=precision, batch=batch, params=params
    )


def _fault_on_mps(model, side_px: int) -> str:
    """Move a model to mps, and compare a batch with the CPU; if they differ, move it back and say how.

    The batch has four different pictures of blocks.
    """
    import torch

    blocks = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 4 - 2  # as normalised pixels
    pictures = torch.nn.functional.interpolate(blocks, size=(side_px, side_px))
    repeats = _CPU_BATCH // len(pictures)
    try:
        with torch.inference_mode():
            expected = model(pictures)
        model.to("mps")
        with torch.inference_mode():
            found = model(pictures.repeat(repeats, 1, 1, 1).to("mps")).cpu()
    except (RuntimeError, TypeError) as error:  # an operation that mps lacks, float64, or too little memory
        fault = weights.first_line(error)
    else:
        error = (found - expected.repeat(repeats, 1)).square().mean().sqrt()
        deviation = float(error / (expected - expected.mean(dim=0)).square().mean().sqrt())
        if deviation <= _MPS_DEVIATION:  # not if it is not a number
            return ""
        fault = f"its features differ from the CPU's by {deviation:.2g} of what tells pictures apart"
    model.to("cpu")
    return fault


def gpu_batch(free_bytes: int) -> int:
    """Patches to try at a time: 256, or the largest power of two that fits into the free memory."""
    room = max(1, free_bytes // _GPU_BYTES_PER_PATCH)
    return min(_GPU_BATCH, 1 << (room.bit_length() - 1))


def by_chunks(forward: Encode, size: int) -> Encode:
    """`forward` on at most `size` patches at a time; `size` is halved for good whenever memory runs out.

    Raises
    ------
    InputError
        when the result is called: if memory does not suffice for one patch.
    """
    import torch

    def encode(patches: np.ndarray) -> np.ndarray:
        nonlocal size
        parts, start = [], 0
        while start < len(patches):
            try:
                parts.append(forward(patches[start : start + size]))
                start += size
                continue
            except RuntimeError as error:  # it holds tensors, so memory is freed only after this block
                if not isinstance(error, torch.OutOfMemoryError) and "MPS backend out of memory" not in str(error):
                    raise
            if size == 1:
                raise InputError("not enough GPU memory for one patch; free some, or set `device: cpu`")
            size //= 2
            logger.warning("GPU out of memory: %d patches at a time from here on", size)
            torch.cuda.empty_cache()
            if torch.backends.mps.is_available():
                torch.mps.empty_cache()
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return encode
