"""The id of a region: the same for every way to write its outline, another for another outline."""

import uuid

import pytest
from shapely import MultiPolygon, Polygon, box

from ctrflow.sections.map_regions import is_unchanged, region_id

OUTLINE = [(10, 10), (40.25, 10), (40.25, 30.5), (10, 30.5)]
HOLE = [(20, 15), (25, 15), (22, 20)]
SAME = {
    "another first corner": Polygon([*OUTLINE[2:], *OUTLINE[:2]], [HOLE]),
    "turned round": Polygon(OUTLINE[::-1], [HOLE[::-1]]),
    "a corner twice": Polygon([*OUTLINE, OUTLINE[3]], [HOLE]),
    "points on a side": Polygon([(10, 10), (12.5, 10), (20, 10), (40.25, 10), *OUTLINE[2:]], [HOLE]),
    "a first point on a side": Polygon([(25, 10), *OUTLINE[1:], OUTLINE[0]], [HOLE]),
    "less than QuPath writes": Polygon([(10.004, 9.996), *OUTLINE[1:]], [HOLE]),
    "as its only part": MultiPolygon([Polygon(OUTLINE, [HOLE])]),
}
OTHER = {
    "a corner moved": Polygon([(10.01, 10), *OUTLINE[1:]], [HOLE]),
    "a corner deleted": Polygon(OUTLINE[1:], [HOLE]),
    "the hole filled": Polygon(OUTLINE),
    "the hole moved": Polygon(OUTLINE, [[(x + 1, y) for x, y in HOLE]]),
    "all of it moved": Polygon([(x, y + 5) for x, y in OUTLINE], [[(x, y + 5) for x, y in HOLE]]),
    "a part more": MultiPolygon([Polygon(OUTLINE, [HOLE]), box(50, 50, 60, 60)]),
}


@pytest.mark.parametrize("how", SAME)
def test_the_same_outline_has_the_same_id(how):
    own = region_id(Polygon(OUTLINE, [HOLE]))
    assert uuid.UUID(own).version == 5
    assert region_id(SAME[how]) == own
    assert is_unchanged(own, SAME[how], "Cancer region")


@pytest.mark.parametrize("how", OTHER)
def test_another_outline_has_another_id(how):
    own = region_id(Polygon(OUTLINE, [HOLE]))
    assert region_id(OTHER[how]) != own
    assert not is_unchanged(own, OTHER[how], "Cancer region")


def test_the_order_of_parts_does_not_matter():
    parts = [Polygon(OUTLINE, [HOLE]), box(50, 50, 60, 60)]
    assert region_id(MultiPolygon(parts)) == region_id(MultiPolygon(parts[::-1]))


@pytest.mark.parametrize("own", [None, 7, "", "5f0c", "e089d763-df01-41a2-9a5b-61846b90c891"])
def test_objects_of_others_are_not_a_maps(own):
    assert not is_unchanged(own, Polygon(OUTLINE, [HOLE]), "Cancer region")


@pytest.mark.filterwarnings("error")
def test_outlines_that_no_map_has():
    flat = Polygon([(0, 0), (5, 5), (9, 9)])
    assert region_id(flat) == region_id(Polygon([(3, 3)] * 4))
    assert uuid.UUID(region_id(box(-1e300, 0, 1e300, 1e300)))
