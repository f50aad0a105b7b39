"""Ids of label tables against those of the section: other sections and aggregates are told, with numbers."""

import logging
import random

import anndata
import numpy as np
import pandas as pd
import pytest

from ctrflow.errors import InputError
from ctrflow.sections.labels import read_labels

WORDS = {"tumor": 1.0, "stroma": 0.0}
# an array of 6.5 mm: the same 4,992 barcodes on every slide
BARCODES = ["".join("ACGT"[n >> 2 * place & 3] for place in range(16)) for n in range(4992)]
MINE, OTHER = BARCODES[:2000], BARCODES[1000:2950]  # 1,000 in common


def section(ids):
    spots = anndata.AnnData(np.ones((len(ids), 1)), obs=pd.DataFrame(index=list(ids)))
    spots.uns["section"] = {"section": "S1", "spot_um": 55.0, "um_per_px": 0.5, "image_scale": 1.0}
    return spots


def read(tmp_path, ids, names, words=None) -> pd.Series:
    """Labels by id of a table with these ids, every other one tumour."""
    words = words or (("tumor", "stroma")[n % 2] for n in range(len(ids)))
    path = tmp_path / "labels.csv"
    path.write_text("Barcode,region\n" + "".join(f"{name},{word}\n" for name, word in zip(ids, words, strict=False)))
    return read_labels(path, section(names), WORDS).set_index("spot")["label"]


def told(tmp_path, ids, names, *fragments) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, ids, names)
    message = str(caught.value)
    assert [part for part in ("labels.csv: ", "S1", *fragments) if part not in message] == [], message
    assert len(message) < 1000


def suffixed(barcodes, suffix="-1", prefix="") -> list[str]:
    return [f"{prefix}{barcode}{suffix}" for barcode in barcodes]


def test_a_part_of_the_section_is_read(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="ctrflow"):
        labels = read(tmp_path, suffixed(MINE[:300]), suffixed(MINE))
    assert list(labels.iloc[:3]) == [1, 0, 1]
    assert labels.notna().sum() == 300
    assert "300 of its 300 ids are of section S1, which has 2000" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_table_of_the_whole_array_is_read(tmp_path, caplog):
    # 40 % of its ids are the section's, but the section is covered
    labels = read(tmp_path, suffixed(BARCODES), suffixed(MINE))
    assert labels.notna().all()
    assert not caplog.records


@pytest.mark.parametrize("share", [0.3, 0.4, 0.6])
def test_a_table_of_another_slide_is_refused(tmp_path, share):
    # in a section of 3,000 of 4,992 spots 60 % of any slide's barcodes are found
    names = BARCODES[:3000]
    ids = BARCODES[int(2000 * (1 - share)) + 1000 :][:2000] if share < 0.5 else None
    ids = ids or random.Random(1).sample(BARCODES, 2000)
    matched = len(set(ids) & set(names))
    told(
        tmp_path, suffixed(ids), suffixed(names),
        f"{2000 - matched} of its 2000 ids are not in section S1, and {3000 - matched} of the section's 3000",
        "no more match than of a table of another section",
    )  # fmt: skip


def test_what_two_versions_of_a_section_lack_is_a_warning(tmp_path, caplog):
    # 90 % of the table's ids, more than the 60 % of any slide
    labels = read(tmp_path, suffixed(BARCODES[300:3300]), suffixed(BARCODES[:3000]))
    assert labels.notna().sum() == 2700
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "300 of its 3000 ids are not in section S1, and 300 of the section's 3000" in warning


AGGREGATES = {
    "the section's own suffix stands for the other": (
        suffixed(OTHER, "-1") + suffixed(MINE, "-2"),
        ["suffix -2 (2,000 rows), suffix -1 (1,950 rows)", "1,000 of its 2,000 spots match",
         "keep those with suffix -2, whose spots are the section's (2,000 of 2,000)", "with suffix -1"],
    ),
    "two full slides": (
        suffixed(MINE, "-1") + suffixed(MINE, "-2"),
        ["suffix -1 (2,000 rows), suffix -2 (2,000 rows)", "keep the rows of this section"],
    ),
    "bins": (
        [f"s_008um_00{n}_00{n}-{run}" for run in (1, 2) for n in range(100, 900)],
        ["suffix -1 (800 rows), suffix -2 (800 rows)"],
    ),
    "parts of three": (
        suffixed(MINE[:900], "-1") + suffixed(OTHER, "-2") + suffixed(BARCODES[500:2500], "-3"),
        ["suffix -3 (2,000 rows), suffix -2 (1,950 rows), suffix -1 (900 rows)", "keep the rows of this section"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AGGREGATES)
def test_a_table_of_an_aggregate_is_refused(tmp_path, name):
    ids, words = AGGREGATES[name]
    names = ids[:800] if name == "bins" else suffixed(MINE)
    told(tmp_path, ids, names, "of an aggregate of runs", "barcodes are the same on every slide", *words)


def test_an_aggregate_whose_first_run_has_the_spots_of_the_section_is_read(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="ctrflow"):
        labels = read(tmp_path, suffixed(MINE, "-1") + suffixed(OTHER, "-2"), suffixed(MINE))
    assert list(labels.iloc[:4]) == [1, 0, 1, 0]
    assert labels.notna().all()
    assert "1950 rows of other sections left out (suffix -2 (1,950 rows))" in caplog.text


@pytest.mark.parametrize("suffix", ["-2", "-1_A1", "_2"])
def test_a_section_with_the_ids_of_the_aggregate_is_read(tmp_path, caplog, suffix):
    # 300 rows of this section among 3,950 of others
    ids = [*suffixed(MINE[:300], suffix), *suffixed(OTHER, "-1_B1"), *suffixed(MINE, "-1_C1")]
    labels = read(tmp_path, ids, suffixed(MINE, suffix))
    assert list(labels.iloc[:4]) == [1, 0, 1, 0]
    assert labels.notna().sum() == 300
    assert not caplog.records


OTHER_FORMS = {
    "another suffix": (suffixed(MINE, "-2"), suffixed(MINE), ["suffix -2 (2,000 rows)", "the section's suffix -1"]),
    "no suffix": (MINE, suffixed(MINE), ["no suffix (2,000 rows)", "the section's suffix -1"]),
    "Seurat's": (suffixed(MINE, "-1_1"), suffixed(MINE), ["suffix -1_1 (2,000 rows)"]),
    "a sample before it": (suffixed(MINE, "-1", "S1_"), suffixed(MINE), ["prefix S1_ (2,000 rows)", "no prefix"]),
    "the section's sample before it": (suffixed(MINE), suffixed(MINE, "-1", "S1_"), ["the section's prefix S1_"]),
    "bins": (
        [f"s_016um_00{n}_00{n}-2" for n in range(100, 900)], [f"s_016um_00{n}_00{n}-1" for n in range(100, 900)],
        ["800 of the 800"],
    ),
    "two others": (suffixed(MINE, "-3") + suffixed(OTHER, "-2"), suffixed(MINE), ["suffix -3 (2,000 rows), suffix -2"]),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_ids_of_another_form_never_match(tmp_path, name):
    ids, names, words = OTHER_FORMS[name]
    told(tmp_path, ids, names, "no id matches section S1: it has", "write ids in the same form", "would match", *words)


def test_ids_of_nothing_in_common_are_told(tmp_path):
    told(tmp_path, suffixed(BARCODES[3000:3100]), suffixed(MINE), "check that both belong to the same section")
    told(tmp_path, ["1x1", "1x2"], ["a", "b"], "it has 1x1, 1x2, the section a, b; check")


def test_ids_of_another_version_of_xenium_are_told(tmp_path):
    # the numbers of version 1 are in many ids of version 2
    message = r"it has aaaab-1, aaaac-1, aaaad-1 and \d+ more, the section 1, 2, 3 and 297 more; check that both"
    with pytest.raises(InputError, match=message):
        read(
            tmp_path,
            [f"aaa{one}{two}-{n}" for n in (1, 2) for one in "abcdefghij" for two in "bcdefghijk"],
            range_of(300),
        )


def range_of(count: int) -> list[str]:
    return [str(n) for n in range(1, count + 1)]
