"""The losses of a training: what is recorded, rejected and reported."""

import numpy as np
import pytest

from ctrflow import storage
from ctrflow.training import losses


def stage(name: str, values, term: str = "loss") -> list[dict]:
    """One term of a stage, epoch by epoch."""
    return [{"stage": name, "epoch": i, "term": term, "value": value} for i, value in enumerate(values, 1)]


def test_the_table_has_the_losses_in_their_order():
    found = losses.table([*stage("fuse", [2.5, 1]), *stage("fuse", [2, 0.5], "divergence"), *stage("a", [3])], "m")
    assert found.columns.tolist() == ["stage", "epoch", "term", "value"]
    assert found.to_numpy().tolist() == [
        ["fuse", 1, "loss", 2.5],
        ["fuse", 2, "loss", 1.0],
        ["fuse", 1, "divergence", 2.0],
        ["fuse", 2, "divergence", 0.5],
        ["a", 1, "loss", 3.0],
    ]


def test_a_method_without_steps_has_a_header_only(tmp_path):
    storage.write_tsv(losses.table([], "linear"), tmp_path / "losses.tsv")
    assert (tmp_path / "losses.tsv").read_text() == "stage\tepoch\tterm\tvalue\n"
    assert losses.concerns(losses.table([], "linear")) == {}


def test_values_read_back_unchanged_also_if_not_finite(tmp_path):
    values = [0.1 + 0.2, np.inf, np.nan, -2.0]
    storage.write_tsv(losses.table(stage("align", values), "m"), tmp_path / "losses.tsv")
    back = storage.read_tsv(tmp_path / "losses.tsv")
    assert np.array_equal(back["value"].to_numpy(), values, equal_nan=True)
    assert back["epoch"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([{"stage": "a", "epoch": 1, "value": 1.0}], "has the keys stage, epoch, value; give stage, epoch, term"),
        ([{"stage": "a", "epoch": 1, "term": "loss", "value": 1.0, "lr": 1}], "has the keys .*, lr; give"),
        ([{"stage": "a", "epoch": 0, "term": "loss", "value": 1.0}], "count from 1, the lowest is 0"),
        (stage("a", [1, 2]) + stage("a", [3]), "`loss` of stage a, epoch 1 is there twice"),
        (stage("a", [1]) + stage("a", [1, 2], "divergence"), "stage a, epoch 2 has no term `loss`"),
    ],
)
def test_an_invalid_record_is_rejected(bad, message):
    with pytest.raises(ValueError, match=f"method m: .*{message}"):
        losses.table(bad, "m")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 2.0, 1.0], {}),
        ([1.0, 1.0], {}),
        ([1.0], {}),
        ([1.0, 5.0, 0.9], {}),  # a jump in between is seen in the picture
        ([1.0, 0.5, 1.1], {"a": "higher at the end than at the start"}),
        ([2.0, np.nan], {"a": "not finite at the end (loss)"}),
        ([2.0, np.inf], {"a": "not finite at the end (loss)"}),
        ([np.inf, 2.0], {}),
        # 20 epochs: the first two average 3.0 and the last two 2.9, although the last is above the first
        ([2.0, 4.0, *[1.0] * 16, 2.8, 3.0], {}),
        ([2.0, 4.0, *[1.0] * 16, 3.3, 2.9], {"a": "higher at the end than at the start"}),
    ],
)
def test_problems_of_a_training_are_reported(values, expected):
    assert losses.concerns(losses.table(stage("a", values), "m")) == expected


def test_each_stage_is_checked_separately_and_only_by_its_total():
    kept = [
        *stage("align", [2.0, 1.0]),
        *stage("fuse", [9.0, 8.0]),
        *stage("fuse", [1.0, 2.0], "divergence"),
        *stage("classify", [1.0, 3.0]),
        *stage("last", [1.0, 0.5]),
        *stage("last", [1.0, np.nan], "unweighted"),
    ]
    assert losses.concerns(losses.table(kept, "m")) == {
        "classify": "higher at the end than at the start",
        "last": "not finite at the end (unweighted)",
    }


def test_two_networks_against_each_other_need_not_lower_their_loss():
    kept = [*stage("contest", [-1.5, -0.4]), *stage("invert", [0.3, 0.4])]
    assert losses.concerns(losses.table(kept, "m")) == {"invert": "higher at the end than at the start"}
    assert losses.unmoved(losses.table(kept, "m")) == {"invert": (0.3, 0.4)}
    assert losses.concerns(losses.table(stage("contest", [1.0, np.nan]), "m")) == {
        "contest": "not finite at the end (loss)"
    }


@pytest.mark.parametrize(
    ("values", "flat"),
    [
        ([4.1596, 4.1582], True),  # two logarithms of eight classes: nothing learned
        ([1.0], False),  # one epoch cannot show it
        ([1.0, 0.996], True),
        ([1.0, 0.99], False),
        ([1.0, 1.3, 0.5, 0.997], True),  # down and up again
        ([1.0, 1.2], True),
        ([-0.2, -0.9], False),  # L1 - SSIM falls below zero
        ([-0.9, -0.2], True),
        ([-0.5, -0.502], True),
        ([0.0, -0.1], False),
        ([0.0, 0.0], True),
        ([1.0, np.nan], False),  # `concerns` has it
        ([np.inf, 1.0], False),
        # 20 epochs: the mean of the first two is 2.0, that of the last two 1.995, then 1.97
        ([1.0, 3.0, *[0.1] * 16, 2.99, 1.0], True),
        ([1.0, 3.0, *[0.1] * 16, 2.94, 1.0], False),
    ],
)
def test_a_training_that_did_not_lower_its_loss_is_told_from_one_that_did(values, flat):
    shuffled = stage("fit", values)[::-1] + stage("fit", [9.0 - i for i in range(len(values))], "part")
    found = losses.unmoved(losses.table(shuffled, "m"))
    assert list(found) == ["fit"] * flat


def test_the_figures_of_a_training_that_did_not_lower_its_loss():
    kept = [*stage("align", [2.0, 1.0]), *stage("fuse", [4.1596, 4.1582]), *stage("classify", [0.5, 0.5])]
    table = losses.table(kept, "m")
    assert losses.unmoved(table) == {"fuse": (4.1596, 4.1582), "classify": (0.5, 0.5)}
    assert losses.unmoved_text(table) == "fuse 4.16 to 4.158, classify 0.5 to 0.5"
    assert losses.unmoved_text(losses.table([], "linear")) == ""
