"""The number of spots of a normal reference to train on."""

from ctrflow.features.learned_from import capped


def test_all_or_a_limited_number_in_their_order():
    assert capped(5, 0, 1).tolist() == capped(5, 5, 1).tolist() == [0, 1, 2, 3, 4]
    some = capped(100, 10, 1)
    assert len(set(some)) == 10
    assert (some[1:] > some[:-1]).all()
    assert some.max() < 100
    assert (some == capped(100, 10, 1)).all()
    assert (some != capped(100, 10, 2)).any()
