"""The base class of models with a network. Imported with a method, so torch is imported inside."""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np


class NetworkModel:
    """A trained network: its conversion to and from the tensors of a model file, and its application to many spots.

    A method's `Model` adds `network`, `fit` and `score`.

    Parameters
    ----------
    net : torch module
    seed : of the training, for methods that draw random numbers while they score
    parts : the other arrays of the model file, by name
    losses : of the training, see `losses.table`
    """

    prefix = ""  # of the names of the network's tensors in the model file
    kept: tuple[str, ...] = ()  # names of the other arrays in it

    def __init__(
        self, net, options: dict, seed: int = 0, parts: dict[str, np.ndarray] | None = None, losses: Sequence[dict] = ()
    ):
        self.net = net
        self.options = options
        self.seed = seed
        self.parts = parts or {}
        self.losses = list(losses)

    @staticmethod
    def network(tensors: dict, options: dict):
        """An untrained network with the shapes of these tensors."""
        raise NotImplementedError

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights and running statistics of the network, and the parts."""
        from ctrflow.nets import training

        return {self.prefix + name: value for name, value in training.to_numpy(self.net).items()} | self.parts

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> Self:
        """The model that `tensors` came from.

        Raises
        ------
        KeyError, RuntimeError
            for tensors that are missing, too many or of another shape.
        """
        from ctrflow.nets import training

        parts = {name: tensors[name] for name in cls.kept}
        net = cls.network(tensors, options)
        training.from_numpy(
            net, {name.removeprefix(cls.prefix): tensors[name] for name in tensors if name not in parts}
        )
        return cls(net.eval(), options, seed, parts)

    def to_device(self):
        """Move the network, in evaluation mode, to the torch device to compute on, and return that."""
        from ctrflow.nets import training

        device = training.start(0)
        self.net.to(device).eval()
        return device

    def in_blocks(self, spots: int, size: int, block: Callable) -> np.ndarray:
        """The results of `block` for `spots` spots, `size` at a time, without gradients.

        Parameters
        ----------
        block : rows (slice) and the network's device -> tensor (rows, ...)
        """
        import torch

        device = self.to_device()
        with torch.inference_mode():
            parts = [block(slice(first, first + size), device).cpu().numpy() for first in range(0, spots, size)]
        return np.concatenate(parts)
