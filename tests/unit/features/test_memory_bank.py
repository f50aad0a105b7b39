"""Coreset and distances to a memory bank, against the textbook forms."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ctrflow.features import memory_bank


@pytest.fixture
def cloud():
    return np.random.default_rng(0).normal(size=(150, 8))


def greedy(points, first, count):
    """k-centre, word by word: always the point farthest from its nearest centre."""
    chosen = [first]
    while len(chosen) < count:
        chosen.append(int(np.argmax(cdist(points, points[chosen]).min(axis=1))))
    return chosen


def test_coreset_is_greedy_k_centre(cloud):
    # 8 features are fewer than the bound asks for, so nothing is projected
    first = np.random.default_rng(4).integers(150)
    assert memory_bank.coreset(cloud, 0.1, 1, 4).tolist() == sorted(greedy(cloud, first, 15))


def test_coreset_of_wide_features_covers_better_than_chance():
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(20, 600)) * 5
    points = centres[np.repeat(np.arange(20), [381, *[1] * 19])] + rng.normal(size=(400, 600))
    rows = memory_bank.coreset(points, 0.1, 1, 0)
    assert set(range(381, 400)) <= set(rows)  # every lone kind is in it; a draw of 40 of 400 would have some two
    assert len(rows) == len(set(rows)) == 40


def test_coreset_of_equal_rows_is_of_distinct_rows():
    rows = memory_bank.coreset(np.ones((30, 4)), 0.5, 1, 0)
    assert len(set(rows)) == 15


@pytest.mark.parametrize(
    ("n", "share", "least", "count"),
    [(2, 0.1, 3, 2), (20, 0.1, 3, 3), (50, 0.1, 1, 5), (50, 1.0, 1, 50), (50, 0.1, 40, 40)],
)
def test_size_of_the_coreset(cloud, n, share, least, count):
    assert len(memory_bank.coreset(cloud[:n], share, least, 0)) == count


def test_coreset_depends_only_on_the_seed(cloud):
    wide = np.tile(cloud, 40)
    assert (memory_bank.coreset(wide, 0.1, 1, 1) == memory_bank.coreset(wide, 0.1, 1, 1)).all()
    assert (memory_bank.coreset(wide, 0.1, 1, 1) != memory_bank.coreset(wide, 0.1, 1, 2)).any()


@pytest.mark.parametrize("k", [1, 3])
def test_nearest_is_exact(cloud, k, monkeypatch):
    monkeypatch.setattr(memory_bank, "BLOCK", 40)  # a last block that is not full
    bank, queries = cloud[:37] + 100, cloud + 100
    distances, rows = memory_bank.nearest(queries, bank, k)
    expected = cdist(queries, bank)
    assert distances == pytest.approx(np.sort(expected, axis=1)[:, :k], abs=1e-12)
    assert (rows == np.argsort(expected, axis=1)[:, :k]).all()
    assert (distances[:37, 0] == 0).all()


def test_reweighting_by_hand():
    bank = np.array([[0.0, 0], [3, 0], [0, 4], [100, 100]])
    # nearest is the first, at 1; the two next to it are the second, at 4, and the third, at sqrt(17)
    root = np.sqrt(2)
    weight = 1 - np.exp(1 / root) / (np.exp(4 / root) + np.exp(np.sqrt(17) / root))
    assert memory_bank.reweighted(np.array([[-1.0, 0]]), bank) == pytest.approx([weight])


def test_reweighting_spot_by_spot(cloud, monkeypatch):
    monkeypatch.setattr(memory_bank, "BLOCK", 40)
    bank, found = cloud[:30], memory_bank.reweighted(cloud, cloud[:30])
    for spot, score in zip(cloud, found, strict=True):
        away = np.linalg.norm(bank - spot, axis=1)
        star = away.argmin()
        near = np.argsort(np.linalg.norm(bank - bank[star], axis=1))[1:3]
        weight = 1 - np.exp(away[star] / np.sqrt(8)) / np.exp(away[near] / np.sqrt(8)).sum()
        assert score == pytest.approx(weight * away[star], abs=1e-12)
        assert 0.5 * away[star] <= score + 1e-12


def test_a_member_is_measured_against_the_others_by_hand():
    bank = np.array([[0.0, 0], [3, 0], [0, 4], [9, 0], [100, 100]])
    # without the first itself: nearest to it is the second, at 3; the two next to that are the third and the fourth, at
    # distances 4 and 9 from the first
    root = np.sqrt(2)
    weight = 1 - np.exp(3 / root) / (np.exp(4 / root) + np.exp(9 / root))
    found = memory_bank.reweighted(bank[[0, 4]], bank, np.array([0, -1]))
    assert found == pytest.approx([3 * weight, 0])


@pytest.mark.parametrize("members", [6, 30])
def test_each_member_against_a_bank_without_it(cloud, members):
    bank = cloud[:members]
    expected = [memory_bank.reweighted(bank[[i]], np.delete(bank, i, axis=0))[0] for i in range(members)]
    assert memory_bank.reweighted(bank, bank, np.arange(members)) == pytest.approx(expected)


def test_a_duplicate_of_a_member_is_another_member():
    bank = np.repeat([[0.0, 0], [6, 8]], [4, 2], axis=0)
    assert memory_bank.reweighted(bank, bank, np.arange(6)) == pytest.approx(np.zeros(6))


def test_reweighting_of_far_spots_does_not_overflow(cloud):
    found = memory_bank.reweighted(cloud * 1e6, cloud[:30])
    assert np.isfinite(found).all()


def test_reweighting_of_a_bank_of_equal_members():
    # both others are as near as the nearest: 1 - 1/2
    assert memory_bank.reweighted(np.array([[3.0, 4]]), np.zeros((5, 2))) == pytest.approx([2.5])


def test_a_small_bank_gives_plain_distances():
    assert memory_bank.reweighted(np.array([[3.0, 4]]), np.zeros((3, 2))) == pytest.approx([5.0])
