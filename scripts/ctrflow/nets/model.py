"""What the models of methods with a network have in common. Imported with a method, so torch is imported inside."""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np


class NetworkModel:
    """A trained network: how it becomes the tensors of a model file and comes back, and how it runs on many spots.

    A method's `Model` adds `network`, `fit` and `score`.

    Parameters
    ----------
    net : torch module
    seed : of the training, for methods that draw while they score
    parts : the arrays of the model file that are not the network's, by name
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
        """The untrained network that these tensors are a state of; widths are read off them."""
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
        """Bring the network, in evaluation mode, to where it computes: the torch device."""
        from ctrflow.nets import training

        device = training.start(0)
        self.net.to(device).eval()
        return device

    def in_blocks(self, spots: int, size: int, block: Callable) -> np.ndarray:
        """What `block` gives for so many spots, `size` at a time, without gradients.

        Parameters
        ----------
        block : rows (slice) and the device, where the network is -> tensor (rows, ...)
        """
        import torch

        device = self.to_device()
        with torch.inference_mode():
            found = [block(slice(first, first + size), device).cpu().numpy() for first in range(0, spots, size)]
        return np.concatenate(found)
