"""The chance of a tumour from the peak of a section."""

import numpy as np
import pytest

from ctrflow.trust import gate
from ctrflow.trust.level import HeldOutSection


def section(patient: str, tumour: bool, peak: float, structure: float = 0.5) -> HeldOutSection:
    return HeldOutSection(f"{patient}{peak}", patient, tumour, peak, structure)


def test_one_patient_on_each_side():
    """Platt's targets are 2/3 and 1/3: the curve runs through both, so slope and intercept are log 2 and 0."""
    found = gate.learn([section("A", True, 1.0), section("B", False, -1.0)])
    assert found.slope == pytest.approx(np.log(2), abs=1e-4)
    assert found.intercept == pytest.approx(0, abs=1e-4)
    assert found.chance(1.0) == pytest.approx(2 / 3, abs=1e-4)


def test_serial_sections_of_a_patient_count_once():
    once = gate.learn([section("A", True, 2.0), section("B", True, 1.0), section("B", False, -1.0)])
    often = gate.learn([section("A", True, 2.0)] * 5 + [section("B", True, 1.0), section("B", False, -1.0)])
    assert (once.slope, once.intercept) == pytest.approx((often.slope, often.intercept), abs=1e-4)
    assert often.sections == (6, 1)


def test_ranges_and_least_structure():
    found = gate.learn([section("A", True, 2.0, 0.4), section("B", True, 1.0, 0.3), section("B", False, -1.0, 0.01)])
    assert (found.tumour, found.free, found.structure, found.patients) == ((1.0, 2.0), (-1.0, -1.0), 0.3, 2)


@pytest.mark.parametrize("sections", [[], [section("A", True, 1.0)], [section("A", False, 1.0)]])
def test_one_kind_of_section_teaches_nothing(sections):
    assert gate.learn(sections) is None


def test_tumour_free_sections_with_the_higher_peaks_teach_nothing():
    assert gate.learn([section("A", True, -1.0), section("B", False, 1.0)]) is None
