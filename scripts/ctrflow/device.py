"""The device of a step's networks."""

import os

from ctrflow.errors import InputError

DEVICES = ("auto", "cpu", "cuda")


def choose(device: str = "auto") -> str:
    """The device to compute on: "cpu" or "cuda". `auto`: a GPU where torch sees one.

    Which GPU is the scheduler's choice: torch sees those that CUDA_VISIBLE_DEVICES names. torch is loaded only where
    the answer depends on it.

    Raises
    ------
    InputError
        if the name is unknown, or a GPU is insisted on and there is none.
    """
    if device not in DEVICES:
        raise InputError(f"device {device!r}; give {', '.join(DEVICES[:-1])} or {DEVICES[-1]}")
    if device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        raise InputError(f"device cuda, but torch sees no GPU here{hidden}; give device: auto, or run on a GPU node")
    return "cpu"


def fix(device: str) -> None:
    """Settle the device of the whole process: hide GPUs (cpu), insist on one (cuda), or leave it to `choose` (auto).

    Raises
    ------
    InputError
        as `choose` does.
    """
    if device == "cpu":  # also from libraries that would take a GPU without asking
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif device != "auto":  # a step without networks must not load torch
        choose(device)
