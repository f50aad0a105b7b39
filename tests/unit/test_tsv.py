"""Reading the sheets that people edit."""

import pytest

from ctrflow.errors import InputError
from ctrflow.tsv import read_rows, require_none

COLUMNS, REQUIRED = ("a", "b", "c"), ("a",)


def test_comments_and_empty_rows_are_skipped_but_counted(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text('# "open\ta\r\n\n b \ta\r\n1\t2\n#3\t4\n\t\n5\t"#6"\tx\n7\t8\n', newline="")
    problems = []
    assert read_rows(path, COLUMNS, REQUIRED, problems) == [
        (f"{path}, row 4", {"a": "2", "b": "1", "c": ""}),
        (f"{path}, row 8", {"a": "8", "b": "7", "c": ""}),
    ]
    assert [problem.split(":")[0] for problem in problems] == [f"{path}, row 7"]  # more cells than the header


def test_only_the_first_cell_can_start_a_comment(tmp_path):
    (tmp_path / "x.tsv").write_text('a\tb\n1\t#2\n"#3"\t4\n')
    rows = read_rows(tmp_path / "x.tsv", COLUMNS, REQUIRED, [])
    assert [row["a"] + row["b"] for _, row in rows] == ["1#2", "#34"]


def test_problems_are_reported_together():
    require_none([], "the list")
    with pytest.raises(InputError) as caught:
        require_none(["one", "two"], "the list")
    assert str(caught.value) == "the list has 2 problems:\n  one\n  two"


def test_only_the_first_of_many_problems_are_listed():
    with pytest.raises(InputError) as caught:
        require_none([f"row {n}" for n in range(2, 72)], "the list")
    lines = str(caught.value).split("\n  ")
    assert (lines[0], lines[1], lines[50:]) == ("the list has 70 problems:", "row 2", ["row 51", "and 20 more"])
