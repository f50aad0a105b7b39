"""What the models of all methods with a network share."""

import numpy as np
import pytest
import torch
from torch import nn

from ctrflow.nets.model import NetworkModel


class Model(NetworkModel):
    prefix = "net."
    kept = ("scale",)

    @staticmethod
    def network(tensors, options):
        return nn.Sequential(nn.Linear(tensors["net.0.weight"].shape[1], 1), nn.Dropout(0.5))


TENSORS = {
    "net.0.weight": np.array([[2.0, 1.0]], np.float32),
    "net.0.bias": np.array([0.5], np.float32),
    "scale": np.array([3.0]),
}


def test_tensors_come_back_as_they_were():
    back = Model.from_tensors(TENSORS, {}, 0).tensors()
    assert back.keys() == TENSORS.keys()
    assert all((back[name] == value).all() for name, value in TENSORS.items())


@pytest.mark.parametrize("name", TENSORS)
def test_a_missing_tensor_is_refused(name):
    with pytest.raises((KeyError, RuntimeError), match=name.removeprefix("net.")):
        Model.from_tensors({other: value for other, value in TENSORS.items() if other != name}, {}, 0)


@pytest.mark.parametrize("name", ["net.1.weight", "net.scale", "other"])
def test_a_tensor_too_many_is_refused(name):
    with pytest.raises(RuntimeError, match=name.removeprefix("net.")):
        Model.from_tensors(TENSORS | {name: np.zeros(1, np.float32)}, {}, 0)


def test_blocks_are_put_together_in_order_without_dropout_and_gradients():
    model, seen = Model.from_tensors(TENSORS, {}, 0), []
    model.net.train()
    spots = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [2.0, 0.0]])

    def block(rows, device):
        found = model.net(spots[rows].to(device)).squeeze(1)
        seen.append((len(found), found.requires_grad))
        return found

    assert model.in_blocks(5, 2, block).tolist() == [2.5, 1.5, 3.5, 0.5, 4.5]
    assert seen == [(2, False), (2, False), (1, False)]
