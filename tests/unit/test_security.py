"""Untrusted files: they run no code, write nowhere else, cannot exhaust memory and never see the hub's token.

Archives are tested in test_archives.py, injection into the report in test_report.py, answers of the hub in
test_encoders.py.
"""

import ast
import dataclasses
import json
import math
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import faulty_server
import vendor_files
from ctrflow import methods, schema, storage
from ctrflow.encoders import weights
from ctrflow.errors import InputError
from ctrflow.features import markers
from ctrflow.fetch import archives, sources
from ctrflow.folds import fold
from ctrflow.image import open_image
from ctrflow.methods import spacell_plus
from ctrflow.nets import training
from ctrflow.plan import sheet, study
from ctrflow.readers import read_section
from ctrflow.results import verdict
from ctrflow.sections import labels
from ctrflow.training import model_file
from ctrflow.trust import calibration, evidence

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
STUDY_SCHEMA = schema.read_yaml(ROOT / "workflow" / "schemas" / "study.schema.yaml")
CONFIG_SCHEMA = schema.read_yaml(ROOT / "workflow" / "schemas" / "config.schema.yaml")
TOKEN = "hf_PlantedTokenOfNobody0123456789abcdef"
ROW = {"section": "S1", "platform": "h5ad", "image": "", "um_per_px": "1", "spot_um": "55"}


def error_of(call, *args, **kwargs) -> str:
    """The message of the InputError that a call must raise."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


# --- no code in our sources that could run untrusted content ----------------------------------------------------------

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
HARMLESS = {("pickle", "UnpicklingError")}
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pd.read_pickle", "pandas.read_pickle",
    "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all", "torch.hub.load", "torch.jit.load",
}  # fmt: skip
REQUIRED = {  # call -> the argument that makes it safe, and its value
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
UNSAFE = {("shell", True), ("allow_pickle", True), ("weights_only", False), ("trust_remote_code", True)}


def unsafe(code: str) -> list[str]:
    """The calls and imports of a piece of code that could run the content of a file: "line: name"."""
    tree = ast.parse(code)
    safe_loaders = {"yaml.SafeLoader", "yaml.CSafeLoader"} | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and "yaml.SafeLoader" in map(ast.unparse, node.bases)
    }
    hits = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            hits += [(node, alias.name) for alias in node.names if alias.name.partition(".")[0] in MODULES]
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            names = {(node.module, alias.name) for alias in node.names} - HARMLESS
            hits += [(node, ".".join(name)) for name in sorted(names)]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        arguments = {(word.arg, word.value.value) for word in node.keywords if isinstance(word.value, ast.Constant)}
        loader = [ast.unparse(word.value) for word in node.keywords if word.arg == "Loader"]
        loader = loader or [ast.unparse(value) for value in node.args[1:2]]
        bad_yaml = name in ("yaml.load", "yaml.load_all") and not set(loader) & safe_loaders
        lacks_guard = name in REQUIRED and REQUIRED[name] not in arguments
        if name in CALLS or bad_yaml or arguments & UNSAFE or lacks_guard:
            hits.append((node, name))
    return [f"{node.lineno}: {what}" for node, what in hits]


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "import joblib.memory", "from pickle import loads", "from pickle import UnpicklingError, load",
        "import torch\ntorch.load(path)", "torch.load(path, weights_only=False)", "np.load(path)",
        "np.load(path, allow_pickle=True)", "pd.read_pickle(path)", "yaml.load(text)", "yaml.load(text, yaml.Loader)",
        "yaml.load(text, Loader=yaml.FullLoader)", "eval(text)", "def f():\n    exec(text)", "os.system(text)",
        "subprocess.run(text, shell=True)", "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_unsafe_code_is_found(code):
    assert len(unsafe(code)) == 1


@pytest.mark.parametrize(
    "code",
    [
        "from pickle import UnpicklingError", "torch.load(path, map_location='cpu', weights_only=True)",
        "np.load(path, allow_pickle=False)", "yaml.safe_load(text)", "yaml.load(text, Loader=yaml.SafeLoader)",
        "class Once(yaml.SafeLoader): pass\nyaml.load(text, Once)", "net.eval()", "re.compile(text)",
        "subprocess.run(['nvidia-smi'], check=True)",
    ],
)  # fmt: skip
def test_safe_code_is_not_flagged(code):
    assert unsafe(code) == []


def test_our_sources_have_no_unsafe_code():
    files = sorted(SCRIPTS.rglob("*.py"))
    assert len(files) > 100
    assert {f"{path.name}: {what}" for path in files for what in unsafe(path.read_text(encoding="utf-8"))} == set()


# --- untrusted files run no code --------------------------------------------------------------------------------------


class Planted:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, mark: Path):
        self.mark = str(mark)

    def __reduce__(self):
        return (Path(self.mark).touch.__func__, (Path(self.mark),))


@pytest.fixture
def mark(tmp_path):
    """The file that a planted pickle would create; must not exist at the end of the test."""
    path = tmp_path / "executed"
    pickle.loads(pickle.dumps(Planted(path)))  # noqa: S301
    path.unlink()
    yield path
    assert not path.exists(), "code from a file was run"


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.pt", "w.safetensors"])
def test_a_pickle_as_weights(name, mark, tmp_path):
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"a": Planted(mark)}))
    assert f"{path}: not a complete" in error_of(weights.read, path)


def test_a_pickle_inside_a_file_of_torch(mark, tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(2), "b": Planted(mark)}, path)
    assert "save its tensors as .safetensors" in error_of(weights.read, path)


@pytest.mark.parametrize("platform", ["h5ad", "st", "visium", "visium_hd", "visium_hd_cells", "xenium"])
def test_a_pickle_as_a_section(platform, mark, tmp_path):
    path = tmp_path / "counts.npy"
    np.save(path, np.array([Planted(mark)], dtype=object), allow_pickle=True)
    assert str(path) in error_of(read_section, ROW | {"platform": platform, "path": str(path)})
    path.write_bytes(pickle.dumps(Planted(mark)))
    assert str(path) in error_of(read_section, ROW | {"platform": platform, "path": str(path)})


def test_a_pickle_as_model_image_and_words(mark, tmp_path):
    path = tmp_path / "file.npy"
    np.save(path, np.array([Planted(mark)], dtype=object), allow_pickle=True)
    for read in (storage.read_safetensors, storage.read_safetensors_metadata, open_image, labels.read_words):
        assert str(path) in error_of(read, path)


@pytest.mark.parametrize("place", ["X", "obs/_index", "obsm/spatial"])
def test_pickles_inside_an_h5ad(place, mark, tmp_path):
    import anndata
    import h5py

    path = tmp_path / "s.h5ad"
    spots = anndata.AnnData(np.ones((9, 3), np.float32), obsm={"spatial": np.zeros((9, 2))})
    spots.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        attributes = dict(file[place].attrs)
        del file[place]
        content = np.array([np.void(pickle.dumps(Planted(mark)))] * 9)
        file.create_dataset(place, data=content)
        file[place].attrs.update(attributes)
    assert str(path) in error_of(read_section, ROW | {"path": str(path)})


@pytest.mark.parametrize(
    ("place", "filters"),
    [
        ("tables/table/obs/_index", [{"id": "vlen-utf8"}, {"id": "pickle"}]),
        ("tables/table/X/data", [{"id": "pickle"}]),
    ],
)
def test_pickles_inside_a_zarr_store(place, filters, mark, tmp_path):
    """Zarr 2 has a codec `pickle`, which numcodecs disables."""
    row, _ = vendor_files.store("visium", 2)(tmp_path)
    array = Path(row["path"]) / place
    about = json.loads((array / ".zarray").read_text())
    (array / ".zarray").write_text(json.dumps(about | {"filters": filters, "compressor": None}))
    for chunk in array.glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(Planted(mark)))
    (Path(row["path"]) / ".zmetadata").unlink(missing_ok=True)
    assert row["path"] in error_of(read_section, row)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir"])
@pytest.mark.parametrize("known", [CONFIG_SCHEMA, STUDY_SCHEMA], ids=["config", "study"])
def test_python_in_yaml(tag, known, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(f"study: {tag} [{tmp_path / 'executed'}]\n")
    assert "row 1, column 8: not valid YAML (could not determine a constructor" in error_of(schema.read_yaml, path)
    assert not (tmp_path / "executed").exists()


def test_a_configuration_that_snakemake_would_evaluate(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("__use_yte__: true\nstudy: ?open('x', 'w').name\n")
    assert "delete that line" in error_of(schema.read_yaml, path)


SHEET = pd.DataFrame(
    {"section": ["a", "b", "c"], "patient": ["a", "b", "c"], "cohort": ["x", "x", "y"], "labels": ["l"] * 3,
     "image": ["i"] * 3, "platform": ["st"] * 3, "tissue": [""] * 3, "note": [""] * 3}
)  # fmt: skip


def expand(task: dict, read_model=None):
    content = {"study": "s", "methods": ["linear"], "encoders": ["enc"], "tasks": [{"name": "t"} | task]}
    content = schema.check(content, STUDY_SCHEMA, "s.yaml")
    return study.expand(content, SHEET, {"enc": {"model": "uni"}}, [1], "s.yaml", read_model)


@pytest.mark.parametrize(
    "query",
    [
        "section.to_csv('executed') == section", "section.to_pickle('executed')", "section.values.tofile('executed')",
        "section.map(cohort.to_csv) == 'a'", "[section.to_csv('executed')] == 'a'", "section.__class__",
        "section == section.to_csv('executed')", "@logging.os.mkdir('executed') == section",
        "section.str.contains(cohort.to_csv('executed'))",
        "`section`.to_csv('executed') == section", "(" * 500 + "section.to_csv('executed')" + ")" * 500,
        "section.str.replace('a', 'b') == 'a'", "(lambda: 1)() == 1", "section[0] == 'a'",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["source", "target", "normal"])
def test_a_query_can_only_compare(query, key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = {"split": "transfer", "source": "cohort == 'x'", "target": "cohort == 'x'"} | {key: query}
    assert "query" in error_of(expand, task)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "query",
    [
        'cohort == "x"', " cohort in ['x', 'y'] and not (section == 'b' or patient != 'a')",
        "(cohort == 'x') & ~(section == 'b')", "section.str.startswith('a')", "section not in ['b', 'c']",
        "section.str.contains('A', case=False) | section in ('a',)",
    ],
)  # fmt: skip
def test_queries_that_compare_are_accepted(query):
    assert set(expand({"split": "transfer", "source": "section == 'c'", "target": query}).targets) >= {"a"}
    assert len(fold.select(SHEET, query, "s.yaml"))


# --- untrusted names lead to no other folder --------------------------------------------------------------------------

OUTSIDE = ["../x", "/x", "a/b", "..", ".", "a/../b", "a\\b", ".hidden", "", "a\0b", "a b", "$HOME", "-rf", "~x", "a*"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_ids_of_a_study_are_plain_folder_names(name):
    task = {"name": "t", "split": "transfer", "target": "q"}
    for content in (
        {"study": name, "tasks": [task]},
        {"study": "s", "tasks": [task | {"name": name}]},
        {"study": "s", "tasks": [task], "methods": [{"method": "linear", "id": name}]},
    ):
        assert "does not match" in error_of(schema.check, content, STUDY_SCHEMA, "s.yaml")
    encoders = {"study": "s", "sections": ["s.tsv"], "encoders": {name: {"model": "uni"}}}
    assert "encoders" in error_of(schema.check, encoders, CONFIG_SCHEMA, "c.yaml")


@pytest.mark.parametrize("name", [one for one in OUTSIDE if one])
@pytest.mark.parametrize("column", ["section", "patient"])
def test_ids_of_a_sheet_are_plain_folder_names(column, name, tmp_path):
    path = tmp_path / "sections.tsv"
    row = {"section": "S1", "patient": "P1", "platform": "st", "path": "x.tsv"} | {column: name}
    path.write_text("\t".join(row) + "\n" + "\t".join(row.values()) + "\n")
    assert f"column {column}: '" in error_of(sheet.read_sheet, [path])


@pytest.mark.parametrize("tissue", ["../../secret", "/secret", "..", "breast/../secret"])
def test_a_tissue_selects_a_marker_list_and_no_other_file(tissue, tmp_path):
    (tmp_path / "markers").mkdir()
    (tmp_path / "markers" / "breast.tsv").touch()
    (tmp_path / "secret.tsv").touch()
    assert "has no marker list (available: breast)" in error_of(markers.path_of, tissue, tmp_path / "markers")


@pytest.mark.parametrize("file", ["/etc/x", "data/public/../x", "data/public/a/../../x", "data/x", "data/public//x"])
def test_a_source_is_written_below_its_folder(file, tmp_path):
    path = tmp_path / "sources.tsv"
    path.write_text(f"file\turl\tchecked\n{file}\thttps://example.org/x\tyes\n")
    assert "is not a valid file path" in error_of(sources.read_sources, path)


@pytest.mark.parametrize("last", ["..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "a%00b", "", "." * 300, "-rf"])
def test_a_download_goes_to_the_downloads_folder(last):
    path = sources.archive_path(f"https://example.org/{last}")
    assert os.path.normpath(path) == path
    assert Path(path).parent.as_posix() == sources.DOWNLOADS


def test_an_archive_is_written_where_the_caller_says(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("../planted", "evil")
        opened.writestr("/planted", "evil")
        opened.writestr("good", "good")
    archives.unpack(tmp_path / "a.zip", "good", tmp_path / "out" / "x")
    assert "is not a path inside" in error_of(archives.unpack, tmp_path / "a.zip", "../planted", tmp_path / "out" / "y")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"a.zip", "out", "out/x"}


# --- model files ------------------------------------------------------------------------------------------------------

OPTIONS = {"modalities": ["gene"], "latent": 4}
METADATA = {
    "method": "spacell_plus", "variant": "mine", "options": OPTIONS, "modalities": ["gene"], "seed": 7,
    "encoder": "none", "encoder_settings": {}, "genes": ["A", "B", "C"], "library_genes": ["A", "B", "C"],
    "tissues": ["breast"], "platforms": ["st"], "simulated": False, "likeness": [], "depth": [900.0], "least_genes": 0,
    "gate": {}, "picture": [], "calibration": {}, "sections": ["z"], "patients": ["z"], "code": "c", "versions": {},
}  # fmt: skip


def scored_by(metadata: dict):
    """A study that scores with a model that has this metadata."""
    return expand({"split": "pretrained", "target": "section == 'a'", "model": "m.safetensors"}, lambda path: metadata)


GATE = {
    "slope": 1.5, "intercept": -1, "structure": 0.2, "patients": 5, "tumour": [0.5, 5.0], "free": [-4, -0.5],
    "sections": [24, 15],
}  # fmt: skip
CALIBRATION = {"contrast": 1.0, "level": 0.5, "intercept": -1.0, "patients": ["P", "Q"]}


def without(values: dict, key: str) -> dict:
    return {name: value for name, value in values.items() if name != key}


NUMBERS = ["1", None, True, math.nan, math.inf, 10**400, [1.0], {}]
WRONG_GATES = [
    *(without(GATE, key) for key in GATE), *(GATE | {"slope": value} for value in NUMBERS),
    *(GATE | {"tumour": value} for value in (1.0, [1.0], [1.0, 2.0, 3.0], [1.0, "2"], [1.0, math.nan], {"0": 1})),
    [], None, "", 0, [GATE],
]  # fmt: skip
WRONG_CALIBRATIONS = [
    *(without(CALIBRATION, key) for key in CALIBRATION), *(CALIBRATION | {"level": value} for value in NUMBERS),
    *(CALIBRATION | {"patients": value} for value in (None, "PQ", [1, 2], {"P": 1})),
    [], None, "", False, [CALIBRATION],
]  # fmt: skip


@pytest.mark.parametrize("learned", [{}, {"gate": GATE, "calibration": CALIBRATION}])
def test_the_metadata_of_a_valid_model_is_accepted(learned):
    (run,) = scored_by(METADATA | learned).runs
    assert (run.variant.name, run.seed, run.encoder) == ("mine", 7, "none")


def test_gate_and_calibration_have_the_numbers_that_the_library_reads():
    assert set(GATE) == {field.name for field in dataclasses.fields(verdict.Gate)}
    assert set(CALIBRATION) == {*calibration.KEYS, "patients"}
    gate = evidence.gate_of({"gate": GATE})
    assert gate.sections == (24, 15)
    assert gate.chance(2 / 3) == pytest.approx(0.5)
    assert evidence.gate_of({"gate": {}}) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("variant", name) for name in OUTSIDE), *(("encoder", name) for name in OUTSIDE), ("variant", 5),
        ("seed", "../x"), ("seed", -1), ("seed", 1.5), ("seed", True), ("options", ["a"]), ("modalities", "gene"),
        ("modalities", []), ("modalities", None), ("modalities", ["gene", "truth"]), ("genes", "ABC"),
        ("genes", [1, 2]), ("genes", []), ("genes", ["A", "A"]),
        ("sections", {"a": 1}), ("patients", None), ("encoder_settings", []), ("method", {}),
        *(("picture", value) for value in ({}, None, "", 1.0, [1], ["1.0"], [math.nan])),
        *(("gate", value) for value in WRONG_GATES), *(("calibration", value) for value in WRONG_CALIBRATIONS),
    ],
)  # fmt: skip
def test_invalid_metadata_of_a_model_is_reported(key, value):
    assert f"(invalid metadata: {key})" in error_of(scored_by, METADATA | {key: value})


def test_variants_and_sections_have_the_same_valid_names():
    assert model_file.ID.pattern == sheet.ID.pattern


@pytest.mark.parametrize("method", ["../linear", "os", "linear.Model", "__init__"])
def test_a_model_must_be_of_a_known_method(method):
    assert f"unknown method `{method}`" in error_of(scored_by, METADATA | {"method": method})


def test_a_model_that_reads_the_image_needs_its_settings():
    metadata = METADATA | {"modalities": ["image", "gene"], "encoder": "enc"}
    assert "missing metadata: encoder_digest, patch_px, patch_um" in error_of(scored_by, metadata)


@pytest.fixture(scope="module")
def tensors():
    """The tensors of a small SpaCell-Plus model of three genes."""
    torch.manual_seed(0)
    return training.to_numpy(spacell_plus._network({"gene": 3}, OPTIONS))


def rejected(tensors, tmp_path, options=OPTIONS, method="spacell_plus") -> str:
    path = tmp_path / "model.safetensors"
    metadata = METADATA | {"method": method, "options": options}
    storage.write_safetensors(tensors, metadata, path)
    message = error_of(model_file.require_tensors, str(path), *storage.read_safetensors(path), methods.load(method))
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_the_tensors_of_a_valid_model_are_accepted(tensors, tmp_path):
    path = tmp_path / "model.safetensors"
    storage.write_safetensors(tensors, METADATA, path)
    model_file.require_tensors(str(path), *storage.read_safetensors(path), spacell_plus)
    linear = {"weights": np.ones(3), "intercept": np.zeros(1)}
    storage.write_safetensors(linear, METADATA | {"options": {"modalities": ["gene"]}}, path)
    model_file.require_tensors(str(path), *storage.read_safetensors(path), methods.load("linear"))


def test_tensors_that_do_not_fit_the_model(tensors, tmp_path):
    first = next(iter(tensors))
    assert "do not fit method spacell_plus" in rejected({}, tmp_path)
    missing = {name: value for name, value in tensors.items() if name != first}
    assert "do not fit method" in rejected(missing, tmp_path)
    assert "do not fit method" in rejected(tensors | {first: tensors[first].T.copy()}, tmp_path)
    assert "planted" in rejected(tensors | {"planted": np.ones(1)}, tmp_path)
    assert f"NaN in {first}" in rejected(tensors | {first: np.full_like(tensors[first], np.nan)}, tmp_path)
    linear = {"weights": np.ones(3), "intercept": np.zeros(1), "planted": np.ones(1)}
    message = rejected(linear, tmp_path, {"modalities": ["gene"]}, "linear")
    assert "unexpected tensors for linear: planted" in message


# --- memory -----------------------------------------------------------------------------------------------------------


def safetensors(content, n_bytes: int | None = None, data: bytes = b"") -> bytes:
    """A hand-made file: the length of the header, true or as claimed, the header, and the data."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if n_bytes is None else n_bytes) + text + data


def tensor(shape: list, end: int, dtype: str = "F32") -> dict:
    return {"__metadata__": {"ctrflow": "{}"}, "w": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


def header(text: str) -> dict:
    """A header with this metadata of the model."""
    return {"__metadata__": {"ctrflow": text}}


MODEL_BOMBS = {
    "a billion numbers": (safetensors(tensor([10**9], 4 * 10**9), data=b"\0" * 16), "not a complete safetensors file"),
    "a billion in 16 bytes": (safetensors(tensor([10**9], 16), data=b"\0" * 16), "not a complete safetensors file"),
    "more than 2^64 numbers": (safetensors(tensor([2**63, 4], 16), data=b"\0" * 16), "not a complete safetensors file"),
    "a header of 2^40 bytes": (safetensors(header("{}"), 2**40), "not a complete safetensors file"),
    "a header of 2^64 - 1 bytes": (safetensors(header("{}"), 2**64 - 1), "not a complete safetensors file"),
    "cut short": (safetensors(tensor([4], 16), data=b"\0" * 8), "not a complete safetensors file"),
    "bytes behind the end": (safetensors(tensor([4], 16), data=b"\0" * 99), "not a complete safetensors file"),
    "no text": (safetensors(b"\xff\xfe\xfd"), "not a complete safetensors file"),
    "empty": (b"", "not a complete safetensors file"),
    "metadata not JSON": (safetensors(header("{no")), "its metadata is not valid JSON"),
    "metadata a list": (safetensors(header("[1]")), "its metadata is not a JSON object"),
    "metadata nested 100,000 deep": (safetensors(header("[" * 10**5)), "its metadata is not valid JSON"),
    "a number of 10,000 digits": (safetensors(header('{"seed": ' + "9" * 10**4 + "}")), "metadata is not valid JSON"),
    "metadata of no model": (safetensors({"__metadata__": {"x": "y"}}), "not a model that ctrflow trained"),
}  # fmt: skip
BFLOAT = safetensors(tensor([4], 8, "BF16"), data=b"\0" * 8)


@pytest.mark.parametrize("name", MODEL_BOMBS)
def test_malformed_model_files(name, tmp_path):
    content, words = MODEL_BOMBS[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for read in (storage.read_safetensors, storage.read_safetensors_metadata):
        message = error_of(read, path)
        assert message.startswith(f"{path}: ")
        assert words in message
        assert len(message) < 500


def test_a_number_type_that_numpy_lacks(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(BFLOAT)
    assert "has a number type that NumPy lacks" in error_of(storage.read_safetensors, path)


def strided(path: Path) -> None:
    """One stored number, expanded to 10^10."""
    torch.save({"w": torch.zeros(1).expand(10**5, 10**5)}, path)


def claimed(path: Path) -> None:
    """A torch file whose pickle claims 10^10 numbers while its storage holds three."""
    torch.save({"w": torch.zeros(3)}, path)
    with zipfile.ZipFile(path) as opened:
        parts = {info.filename: opened.read(info) for info in opened.infolist()}
    name = next(name for name in parts if name.endswith("data.pkl"))
    parts[name] = parts[name].replace(b"K\x03", b"\x8a\x05" + (10**10).to_bytes(5, "little"))
    with zipfile.ZipFile(path, "w") as opened:
        for part, content in parts.items():
            opened.writestr(part, content)


def tiff(side: int, tile: int = 0, compression: int = 5) -> bytes:
    """The header of an RGB picture of `side` x `side` px, in one tile or strip of 16 bytes."""
    tags = [(256, side), (257, side), (258, 8), (259, compression), (262, 2), (277, 3)]
    tags += [(322, tile), (323, tile), (324, 8), (325, 16)] if tile else [(273, 8), (278, side), (279, 16)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 64


def png(side: int) -> bytes:
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def nested(depth: int) -> str:
    """GeoJSON of a polygon whose coordinates are nested in that many lists."""
    shape = "[" * depth + "]" * depth
    return (
        '{"type": "Feature", "properties": {"classification": {"name": "Tumor"}}, '
        f'"geometry": {{"type": "Polygon", "coordinates": {shape}}}}}'
    )


ALIASES = "x0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
READ = """
import json, resource, sys
from ctrflow import schema, storage
from ctrflow.encoders import weights
from ctrflow.errors import InputError
from ctrflow.image import open_image
from ctrflow.sections import drawings
from pathlib import Path

def picture(path):
    with open_image(path) as image:
        image.read(0, 0, 64, 64)

def study(path):
    schema.check(schema.read_yaml(path), schema.read_yaml(sys.argv[2]), str(path))

READERS = {".safetensors": storage.read_safetensors, ".pth": weights.read, ".tif": picture, ".png": picture,
           ".geojson": lambda path: drawings.read_geojson(path, bool), ".yaml": study}
import torch, tifffile, imagecodecs, PIL.Image, PIL.PngImagePlugin, shapely.geometry, jsonschema

def status_mb(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

def reset_peak_mb():
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak (Linux)
    return status_mb("VmRSS")

resource.setrlimit(resource.RLIMIT_AS, (30 << 30, 30 << 30))  # protects the machine if this test fails
for path in sorted(map(Path, sys.argv[1].split(":"))):
    before = reset_peak_mb()
    try:
        READERS[path.suffix](path)
        outcome = ["read", ""]
    except InputError as error:
        outcome = ["rejected", str(error)]
    except BaseException as error:
        outcome = [type(error).__name__, str(error)[:200]]
    print("@" + json.dumps([path.name, *outcome, status_mb("VmHWM") - before]), flush=True)
"""


@pytest.fixture(scope="module")
def after_bombs(tmp_path_factory) -> dict:
    """name -> (outcome, message, MB that the process grew by); one process reads all bombs in turn."""
    folder = tmp_path_factory.mktemp("bombs")
    (folder / "billion.safetensors").write_bytes(MODEL_BOMBS["a billion numbers"][0])
    (folder / "header.safetensors").write_bytes(MODEL_BOMBS["a header of 2^40 bytes"][0])
    strided(folder / "strided.pth")
    claimed(folder / "claimed.pth")
    (folder / "strip.tif").write_bytes(tiff(10**6))
    (folder / "uncompressed.tif").write_bytes(tiff(10**6, compression=1))
    (folder / "tiles.tif").write_bytes(tiff(10**6, 256))
    (folder / "tile.tif").write_bytes(tiff(10**6, 10**6 // 16 * 16))
    (folder / "huge.png").write_bytes(png(10**6))
    (folder / "deep.geojson").write_text("[" * 10**7)
    (folder / "nested.geojson").write_text(nested(500))
    (folder / "closed.geojson").write_text(nested(10**6))
    (folder / "aliases.yaml").write_text(ALIASES + "study: *x9\ntasks: []\n")
    (folder / "itself.yaml").write_text("study: &a [*a]\ntasks: []\n")
    (folder / "brackets.yaml").write_text("study: " + "[" * 5000)
    paths = ":".join(map(str, folder.iterdir()))
    done = subprocess.run(
        [sys.executable, "-c", READ, paths, str(ROOT / "workflow" / "schemas" / "study.schema.yaml")],
        env={"PYTHONPATH": str(SCRIPTS), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    results = (json.loads(line[1:]) for line in done.stdout.splitlines() if line.startswith("@"))
    return {name: rest for name, *rest in results}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("billion.safetensors", "not a complete safetensors file"),
        ("header.safetensors", "header too large"),
        ("strided.pth", "100000 x 100000, but fewer numbers are stored"),
        ("claimed.pth", "not a complete file of torch tensors"),
        ("strip.tif", "1000000 x 1000000 px is too large to decode at once"),
        ("uncompressed.tif", "damaged or truncated image"),
        ("tiles.tif", "damaged or truncated image"),
        ("tile.tif", "1000000 x 1000000 px is too large to decode at once"),
        ("nested.geojson", "feature 1: its coordinates are not a valid polygon"),
        ("huge.png", "1000000 x 1000000 px is too large to decode at once"),
        ("deep.geojson", "not valid JSON"),
        ("closed.geojson", "not valid JSON"),
        ("aliases.yaml", "more than 100,000 values"),
        ("itself.yaml", "more than 30 deep"),
        ("brackets.yaml", "a value that cannot be read"),
    ],
)
def test_bombs_are_rejected_before_they_take_memory(name, words, after_bombs):
    outcome, message, grown_mb = after_bombs[name]
    assert (outcome, words in message) == ("rejected", True), (outcome, message)
    assert len(message) < 1000
    assert grown_mb < 100  # reading the largest of these files, 10 MB of text, takes 20
    assert grown_mb > 5 or name != "deep.geojson"  # the measurement works


def test_nan_among_weights(tmp_path):
    for name, save in (("w.safetensors", save_file), ("w.pth", torch.save)):
        path = tmp_path / name
        save({"good": torch.ones(3), "bad": torch.tensor([1.0, float("nan")])}, path)
        assert error_of(weights.read, path) == f"{path}: NaN in bad; download it again"
        save({"mask": torch.tensor([0.0, -float("inf")]), "count": torch.ones((), dtype=torch.int64)}, path)
        assert set(weights.read(path)) == {"mask", "count"}  # masks of attention hold infinities


def test_options_that_ask_for_all_memory(tensors, tmp_path):
    """The network would have 10^11 numbers, 400 GB."""
    assert "do not fit method" in rejected(tensors, tmp_path, OPTIONS | {"latent": 10**9})


# --- the hub's token --------------------------------------------------------------------------------------------------

ASK = """
import sys
from ctrflow import encoders, errors, logs
logs.setup("logs/step.log")
for model in ("uni", "uni2_h", "resnet50", "swin_tiny", "efficientnet_lite0"):
    options = {"model": model, "weights": "hub", "device": "cpu"}
    print(model, "|", encoders.access(options))
    try:
        encoders.build(model, options)
    except errors.InputError as error:
        logs.logger.error("%s", error)
import os
logs.logger.warning("sent: %s", {"Authorization": "Bearer " + os.environ["HF_TOKEN"]})
try:
    raise OSError("https://user:" + os.environ["HF_TOKEN"] + "@hub/x")
except OSError as error:
    raise RuntimeError("crash with " + os.environ["HF_TOKEN"]) from error
"""


def echoing(code: int):
    """A refusal that repeats the request's token wherever it can."""

    def answer(request):
        sent = request.headers["Authorization"] or ""
        request.begin(code, X_Error_Message=f"no {sent}", WWW_Authenticate=sent, Content_Length=len(sent))
        request.wfile.write(sent.encode() if request.command == "GET" else b"")

    return answer


@pytest.mark.parametrize("token", [TOKEN, pytest.param("a-token.of=another/kind", marks=pytest.mark.slow)])
def test_the_token_of_the_hub_is_written_nowhere(token, tmp_path, monkeypatch):
    """Against a hub that refuses, fails, hangs up and sends damaged files; at the end the process crashes."""
    from ctrflow.encoders import efficientnet_lite0, resnet50, swin_tiny, uni, uni2_h

    monkeypatch.setattr(faulty_server._Handler, "do_HEAD", faulty_server._Handler.do_GET, raising=False)
    cut_short = faulty_server.rangeless(b"x" * 1000, sends=10, ETag='"abc"', X_Repo_Commit="c" * 40)
    answers = {
        uni: echoing(401),
        uni2_h: echoing(403),
        resnet50: echoing(503),
        swin_tiny: lambda request: None,  # hangs up
        efficientnet_lite0: cut_short,
    }
    with faulty_server.serve() as server:
        for module, answer in answers.items():
            source = module.NETWORK.source
            server.add(f"/{source.repository}/resolve/{source.revision or 'main'}/{source.file}", answer)
        done = subprocess.run(
            [sys.executable, "-c", ASK],
            env={
                "PYTHONPATH": str(SCRIPTS), "PATH": os.environ["PATH"], "HF_ENDPOINT": server.root, "HF_TOKEN": token,
                "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1",
            },
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        sent = [headers["Authorization"] for asked in server.requests.values() for headers in asked]
        assert set(server.answers) <= set(server.requests)
    assert sent.count(f"Bearer {token}") >= 5
    log = (tmp_path / "logs" / "step.log").read_text()
    assert done.stdout.count("access denied") == 2
    assert "the hub answers 503" in done.stdout
    for words in (
        "sent: {'Authorization': 'Bearer ***'}",
        "RuntimeError: crash with ***",
        "OSError: https://user:***@",
    ):
        assert words in log
        assert words in done.stderr
    assert done.returncode == 1
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert [path for path, content in written.items() if token.encode() in content] == []
    assert token not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"hf_token": TOKEN}, "hf_token"),
        ({"encoders": {"uni": {"model": "uni", "weights": TOKEN}}}, "encoders.uni.weights"),
        ({"encoders": {"uni": {"model": "uni", "token": f"Bearer {TOKEN}"}}}, "encoders.uni.token"),
        ({"encoders": {"uni": TOKEN}}, "encoders.uni"),
        ({TOKEN: "x"}, "hf_***"),
        ({"sections": ["a.tsv", TOKEN]}, "sections.1"),
        ({"study": TOKEN}, "study"),
    ],
)
def test_a_token_in_the_configuration_is_reported_and_not_repeated(content, where):
    config = {"study": "demo", "sections": ["s.tsv"], "encoders": {"uni": {"model": "uni"}}} | content
    message = error_of(schema.check, config, CONFIG_SCHEMA, "config.yaml")
    assert message.startswith(f"config.yaml: {where}: looks like a Hugging Face token")
    assert "HF_TOKEN" in message
    assert TOKEN not in message


def test_a_token_given_as_weights_is_not_repeated():
    assert error_of(weights.local, TOKEN).startswith("***: no such weights file")
