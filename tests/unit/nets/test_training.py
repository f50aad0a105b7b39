"""Settings that every network is trained and applied with."""

import pytest
import torch

from ctrflow.nets import training


@pytest.fixture
def tf32():
    """TF32 as torch has it by default, before and after the test."""
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.usefixtures("tf32")
def test_a_gpu_computes_in_float32_as_the_cpu():
    training.start(0)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.are_deterministic_algorithms_enabled()
