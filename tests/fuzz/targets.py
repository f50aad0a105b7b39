"""The readers to fuzz, and their contracts: for any bytes, the result fulfils the contract or is an InputError."""

import json
import math
import re
import struct
from functools import cache
from pathlib import Path

import numpy as np

from ctrflow import schema, storage
from ctrflow.errors import InputError
from ctrflow.plan import sheet, study
from ctrflow.readers import platforms, xenium
from ctrflow.sections import labels

HERE = Path(__file__).parent
SCHEMA = HERE.parents[1] / "workflow" / "schemas" / "study.schema.yaml"
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
WORDS = {"tumor": 1.0, "invasive cancer": 1.0, "stroma": 0.0, "artefact": math.nan, "outside": 0.0}
# four sections of three patients, and one of a fourth without labels
SHEET = [
    {"section": section, "patient": patient, "cohort": cohort, "labels": drawn, "image": "he.tif", "normal": normal}
    for section, patient, cohort, drawn, normal in (
        ("A1", "A", "lab", "x", ""), ("B1", "B", "lab", "x", ""), ("B2", "B", "lab", "x", "yes"),
        ("C1", "C", "lab", "x", "yes"), ("U1", "U", "mine", "", ""),
    )
]  # fmt: skip
SCORED_BY_A_MODEL = {
    "study": "given", "encoders": ["none"],
    "tasks": [{"name": "map", "split": "pretrained", "target": "cohort == 'mine'", "model": "model.safetensors"}],
}  # fmt: skip
LONGEST = 20_000  # bytes of a message with 50 problems, without what it repeats of the file


def read(target: str, path: Path) -> bool:
    """Whether a file was read; if not, it must be rejected with a printable message that names the file."""
    try:
        TARGETS[target](path)
    except InputError as error:
        message = str(error)
        assert path.name in message, message
        assert len(message.encode()) < LONGEST + 10 * path.stat().st_size, message
        return False
    return True


def read_sheet(path: Path) -> None:
    """Section sheet: plain, unique ids; valid numbers."""
    table = sheet.read_sheet([path])
    assert list(table.columns) == list(sheet.COLUMNS)
    assert len(table)
    assert table.map(lambda cell: isinstance(cell, str) and cell == cell.strip()).all(axis=None)
    assert all(ID.fullmatch(name) for name in [*table["section"], *table["patient"]])
    assert table["section"].str.casefold().is_unique
    assert set(table["platform"]) <= set(platforms())
    assert (table["path"] != "").all()
    assert all(0 < float(cell) < math.inf for name in sheet.NUMBERS for cell in table[name] if cell)
    missing = sheet.missing_files(table)
    assert {re.match(r"section (\S+), column", problem)[1] for problem in missing} <= set(table["section"])


def read_words(path: Path) -> None:
    """Label words: each is cancer, other or unknown, and can be looked up."""
    meanings = labels.read_words(path, "lab")
    assert all(value in (0, 1) or math.isnan(value) for value in meanings.values())
    np.testing.assert_equal(labels.meanings(meanings, meanings), meanings)


def read_labels(path: Path) -> None:
    """Table of spots, or of cells if it mentions cells, or a drawing: a label per spot, unchanged by writing."""
    spots, cells = _section()
    table = labels.read_labels(path, spots, WORDS, cells if b"cell" in path.read_bytes() else None)
    assert list(table.columns) == ["spot", "label", "region"]
    assert list(table["spot"]) == list(spots.obs_names)
    assert table["label"].dtype == "Int64"
    assert set(table["label"].dropna()) <= {0, 1}
    kept = path.with_name("labels.tsv")
    storage.write_tsv(table, kept)
    again = storage.read_tsv(kept).astype({"label": "Int64"})
    assert list(again["spot"]) == list(table["spot"])
    assert again["label"].equals(table["label"])
    assert list(again["region"].fillna("")) == list(table["region"])


def read_alignment(path: Path) -> None:
    """Alignment: a finite, invertible affine matrix with a pixel size."""
    matrix = xenium._read_alignment({"section": "S1", "path": "bundle", "alignment": str(path)})
    assert matrix.shape == (3, 3)
    assert np.isfinite(matrix).all()
    there = np.column_stack([np.random.default_rng(0).uniform(0, 30_000, (4, 2)), np.ones(4)]) @ matrix.T
    assert np.isfinite(there).all()
    assert np.isfinite(np.linalg.inv(matrix)).all()
    assert 0 < math.sqrt(abs(np.linalg.det(matrix[:2, :2]))) < math.inf


def read_study(path: Path) -> None:
    """Study: runs of known sections, with plain names, that never train on a target's patient."""
    content = schema.check(schema.read_yaml(path), _schema(), str(path))
    _require_fair(study.expand(content, _sheet(), {"uni": {}}, [1], str(path), marked=("breast",)))


def read_model(path: Path) -> None:
    """Model file: its metadata determine folders and options. If the bytes are JSON, they are used as metadata."""
    content = path.read_bytes()
    if content.startswith(b"{"):
        _write_model(content, path)
    task = schema.check(SCORED_BY_A_MODEL, _schema(), str(path))
    expanded = study.expand(task, _sheet(), {}, [1], str(path), read_model=lambda _: _metadata(path))
    _require_fair(expanded)
    assert all(isinstance(run.seed, int) and 0 <= run.seed < 2**63 for run in expanded.runs)


TARGETS = {
    "sheet": read_sheet,
    "words": read_words,
    "labels": read_labels,
    "drawing": read_labels,
    "alignment": read_alignment,
    "study": read_study,
    "model": read_model,
}


def _require_fair(expanded) -> None:
    patients = {row["section"]: row["patient"] for row in SHEET}
    assert expanded.runs
    assert len({run.file("") for run in expanded.runs}) == len(expanded.runs)
    for run in expanded.runs:
        assert all(ID.fullmatch(name) for name in (run.task["name"], run.fold.name, run.encoder, run.variant.name)), run
    for fold in expanded.folds.values():
        learned = {patients[name] for name in (*fold.sources, *fold.normals)}
        assert not learned & {patients[name] for name in fold.targets}, fold


def _metadata(path: Path) -> dict:
    tensors, metadata = storage.read_safetensors(path)
    assert metadata == storage.read_safetensors_metadata(path)
    assert all(isinstance(values, np.ndarray) for values in tensors.values())
    return metadata


def _write_model(metadata: bytes, path: Path) -> None:
    """A safetensors file of one number, written by its specification, not with the library that reads it."""
    text = metadata.decode("utf-8", "replace")
    about = {"__metadata__": {"ctrflow": text}, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    header = json.dumps(about).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<f", 1.0))


@cache
def _schema() -> dict:
    return schema.read_yaml(SCHEMA)


@cache
def _sheet():
    import pandas as pd

    rows = [dict.fromkeys(sheet.COLUMNS, "") | {"platform": "st", "tissue": "breast"} | row for row in SHEET]
    return pd.DataFrame(rows)


@cache
def _section():
    """Nine spots on a grid, and two cells on each of the first four."""
    import anndata
    import pandas as pd

    um = np.array([(100.0 * x, 100.0 * y) for y in (1, 2, 3) for x in (1, 2, 3)])
    about = {"section": "S1", "spot_um": 55.0, "um_per_px": 2.0, "image_scale": 0.5}
    # as Visium and as HER2ST name them
    names = [f"AAAC{n}-1" for n in range(4)] + [f"{x}x{y}" for y in (2, 3) for x in (1, 2)] + ["GGGT-1"]
    spots = anndata.AnnData(
        np.ones((9, 1), np.float32),
        obs=pd.DataFrame(index=names),
        obsm={"spatial": um / 2, "spatial_um": um},
        uns={"section": about},
    )
    beside = np.repeat(um[:4], 2, axis=0) + np.tile([(-5.0, 0.0), (5.0, 5.0)], (4, 1))
    cells = anndata.AnnData(
        np.ones((8, 1), np.float32),
        obs=pd.DataFrame({"spot": np.repeat(names[:4], 2)}, index=[f"cell{n}" for n in range(8)]),
        obsm={"spatial_um": beside},
    )
    return spots, cells
