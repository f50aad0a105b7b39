"""The doctor: each check with a plan that is broken there; all problems are in one report, and nothing is raised."""

import os
import re
import runpy
import shutil
import sys
import threading
import warnings
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from anndata import AnnData
from packaging.requirements import Requirement
from safetensors.numpy import save_file

from ctrflow import doctor, encoders, logs, readers, simulate
from ctrflow.doctor import Extent
from ctrflow.errors import InputError
from ctrflow.findings import LEVELS, Finding
from ctrflow.readers import genes
from ctrflow.sections import placement
from ctrflow.simulate.vendors import write_st
from ctrflow.storage import write_h5ad, write_safetensors
from ctrflow.training.model_file import PROFILE

PROJECT = Path(__file__).parents[2]
WORDS = PROJECT / "config" / "label_words.tsv"
HED = {"hed_texture": {"model": "hed_texture"}}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A simulated ST section in HER2ST's layout."""
    root = tmp_path_factory.mktemp("raw")
    write_st(simulate.simulate_section("st", spots=60, genes=60, seed=4), root, "S1")
    return root


def row(root, **more):
    paths = {"path": "ST-cnts/S1.tsv.gz", "image": "ST-imgs/S1.jpg", "labels": "ST-pat/lbl/S1_labeled_coordinates.tsv"}
    empty = dict.fromkeys(
        ["cohort", "tissue", "um_per_px", "spot_um", "normal", "note", "image_scale", "alignment"], ""
    )
    named = {column: str(root / path) for column, path in paths.items()}
    return {"section": "S1", "patient": "P1", "platform": "st"} | empty | named | more


def plan(tmp_path, *rows, **more):
    lock = tmp_path / "requirements.txt"
    if not lock.exists():
        lock.write_text(f"numpy=={np.__version__} \\\n    --hash=sha256:00\n    # via -r requirements.in\n")
    content = {
        "study": "mine", "rows": list(rows), "encoders": HED, "device": "cpu", "folder": str(tmp_path / "results"),
        "lock": str(lock), "label_words": str(WORDS),
    }  # fmt: skip
    return content | more


def expect(findings, level, check, *fragments, subject=None):
    """The only finding of that level and check that contains all fragments."""
    hits = [
        one
        for one in findings
        if (one.level, one.check) == (level, check)
        and subject in (None, one.subject)
        and all(part in one.message for part in fragments)
    ]
    assert len(hits) == 1, doctor.page(findings)
    return hits[0]


def problems(findings):
    return [one for one in findings if one.level == "problem"]


# --- all checks -------------------------------------------------------------------------------------------------------


def test_a_healthy_plan_has_no_problem(tmp_path, raw):
    findings = doctor.examine(plan(tmp_path, row(raw)))
    assert problems(findings) == []
    shown = expect(findings, "ok", "sections", "60 spots, 60 genes, ", " µm per px", subject="S1").message
    assert float(shown.split()[4]) == pytest.approx(1.1, rel=0.02)
    expect(findings, "ok", "sections", "labels of 60 of 60 spots", subject="S1")
    expect(findings, "ok", "configuration", "1 section to", subject="mine")
    expect(findings, "ok", "encoders", "needs no weights", subject="hed_texture")
    assert {one.check for one in findings} == {
        "configuration", "versions", "gpu", "encoders", "sections", "disk", "memory",
    }  # fmt: skip
    assert {one.level for one in findings} <= set(LEVELS)
    assert doctor.page(findings).splitlines()[-1].startswith("0 problems, ")
    assert not (tmp_path / "results").exists()


def test_no_label_of_a_spot_is_reported(tmp_path, raw):
    shown = doctor.page(doctor.examine(plan(tmp_path, row(raw))))
    for word in ("invasive", "in situ", "adipose", "cancer", "tumor"):
        assert word not in shown


def test_everything_is_reported_at_once(tmp_path, raw, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 100, 0))
    monkeypatch.setattr(doctor, "memory_bytes", lambda: 1e6)
    monkeypatch.setattr(doctor, "choose", _no_gpu)
    monkeypatch.setattr(shutil, "which", lambda name: None)  # a login node has sbatch, and no GPU of its own
    lock = tmp_path / "requirements.txt"
    lock.write_text("ctrflow-no-such-package==1.0\n")
    broken = plan(
        tmp_path,
        row(raw),
        row(tmp_path / "nowhere", section="S2"),
        encoders=HED | {"uni": {"model": "uni", "weights": str(tmp_path / "uni.bin")}, "odd": {"model": "odd"}},
        device="cuda",
        problems=["config.yaml: study: unknown study `x`"],
    )
    findings = doctor.examine(broken)
    expect(findings, "problem", "configuration", "unknown study `x`")
    expect(findings, "problem", "versions", "not installed", subject="ctrflow-no-such-package")
    expect(findings, "problem", "gpu", "torch sees no GPU")
    expect(findings, "problem", "encoders", "uni.bin", subject="uni")
    expect(findings, "problem", "encoders", "unknown encoder 'odd'", subject="odd")
    expect(findings, "problem", "sections", "column path", subject="S2")
    expect(findings, "problem", "sections", "column image", subject="S2")
    expect(findings, "problem", "sections", "column labels", subject="S2")
    expect(findings, "ok", "sections", "60 genes", subject="S1")
    expect(findings, "problem", "disk", "0 bytes free")
    expect(findings, "problem", "memory", "S1")
    assert doctor.page(findings).splitlines()[-1].startswith("10 problems, ")


def _no_gpu(device):
    raise doctor.InputError("device is cuda, but torch sees no GPU")


def test_problems_of_the_configuration_are_not_reported_twice(tmp_path, raw):
    gone = row(raw, labels="gone.csv", image="gone.jpg")
    lines = [
        f"section S1, column {column}: {gone[column]} does not exist; correct the path or fetch the file"
        for column in ("image", "labels")
    ]
    odd = "encoder odd: no `model`; give one of: "
    given = [
        "\n  ".join(["sections.tsv: 2 missing files:", *lines]),
        "\n  ".join(["sections.tsv: 2 missing files:", lines[0], "section S9: another"]),
        f"config.yaml: {odd}{', '.join(encoders.names())}",
    ]
    findings = doctor.examine(plan(tmp_path, gone, encoders={"odd": {}}, problems=given))
    of_configuration = [one.message for one in findings if one.check == "configuration"]
    assert of_configuration == ["sections.tsv: 2 missing files:\n  section S9: another"]
    assert [one.message for one in findings if one.check == "sections"] == lines
    expect(findings, "problem", "encoders", odd)


def test_the_page():
    findings = [
        Finding("problem", "disk", "0 bytes free", subject="results"),
        Finding("ok", "gpu", "CPU only", subject="torch"),
        Finding("warning", "versions", "word " * 30 + "/a-path/that-must/not-be-broken", subject="timm"),
        Finding("ok", "sections", "two\nlines", subject="S1"),
        Finding("problem", "sections", "gone", subject="S2"),
    ]
    shown = doctor.page(findings)
    assert shown == (
        "ok       gpu       torch    CPU only\n"
        "ok       sections  S1       two\n"
        "                            lines\n"
        "\n"
        "warning  versions  timm     " + ("word " * 18).strip() + "\n"
        "                            " + "word " * 12 + "/a-path/that-must/not-be-broken\n"
        "\n"
        "problem  disk      results  0 bytes free\n"
        "problem  sections  S2       gone\n"
        "\n"
        "2 problems, 1 warning, 2 ok\n"
    )
    assert doctor.page([]) == "0 problems, 0 warnings, 0 ok\n"
    assert doctor.page(findings[:1]).endswith("\n\n1 problem, 0 warnings, 0 ok\n")


@pytest.mark.parametrize("broken", [False, True])
def test_the_script_writes_the_page_and_fails_on_a_problem(tmp_path, raw, monkeypatch, broken):
    monkeypatch.setattr(logs, "setup", lambda path: None)
    content = plan(tmp_path, row(raw, **({"labels": "gone.csv"} if broken else {})))
    page = tmp_path / "logs" / "doctor.txt"
    params = SimpleNamespace(plan=content, page=str(page), shown=False)
    given = {"snakemake": SimpleNamespace(log=[str(tmp_path / "doctor.log")], params=params)}
    if broken:
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(PROJECT / "scripts" / "doctor.py"), init_globals=given)
        assert caught.value.code == 1
    else:
        runpy.run_path(str(PROJECT / "scripts" / "doctor.py"), init_globals=given)
    assert page.read_text().splitlines()[-1].startswith(f"{int(broken)} problem")


# --- versions ---------------------------------------------------------------------------------------------------------

LOCK = """\
# This file was autogenerated by uv via the following command:
#    uv pip compile requirements.in --python-version 3.11 --generate-hashes -o requirements.txt
aiohttp==3.14.5 \\
    --hash=sha256:0133
    # via s3fs
numpy==2.4.6 \\
    --hash=sha256:0133
    # via
    #   -r requirements.in
    #   pandas
pytest==9.0 \\
    --hash=sha256:0133
    # via -r requirements.in
timm==1.0.31 \\
    --hash=sha256:0133
    # via -r requirements.in
torch==2.15.0 \\
    --hash=sha256:0133
    # via
    #   -r requirements.in
    #   timm
torchvision==0.29.2 ; python_version >= "3.11" \\
    --hash=sha256:0133
    # via -r requirements.in
"""
AS_LOCKED = {"numpy": "2.4.6", "timm": "1.0.31", "torch": "2.15.0+cpu", "torchvision": "0.29.2", "pytest": "9.0"}


def versions(tmp_path, monkeypatch, installed, lock=LOCK):
    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    path = tmp_path / "requirements.txt"
    path.write_text(lock)
    return doctor.check_versions(path)


def test_versions_as_locked(tmp_path, monkeypatch):
    findings = versions(tmp_path, monkeypatch, AS_LOCKED)
    assert {one.level for one in findings} == {"ok"}  # what requirements.in does not name does not matter
    expect(findings, "ok", "versions", "5 have the version in", subject="packages")
    without_tests = {name: version for name, version in AS_LOCKED.items() if name != "pytest"}
    findings = versions(tmp_path, monkeypatch, without_tests)
    assert {one.level for one in findings} == {"ok"}
    expect(findings, "ok", "versions", "4 have the version in", subject="packages")


def test_other_and_missing_versions(tmp_path, monkeypatch):
    installed = {name: version for name, version in AS_LOCKED.items() if name != "timm"} | {"numpy": "1.26.4"}
    findings = versions(tmp_path, monkeypatch, installed)
    expect(findings, "problem", "versions", "not installed, 1.0.31 is required", "pip install", subject="timm")
    expect(findings, "warning", "versions", "1.26.4 is installed", "has 2.4.6", "pip install", subject="numpy")
    expect(findings, "ok", "versions", "3 have the version in", subject="packages")
    assert len(problems(findings)) == 1


def test_torch_and_torchvision_are_a_pair(tmp_path, monkeypatch):
    findings = versions(tmp_path, monkeypatch, AS_LOCKED | {"torch": "2.14.1"})
    expect(findings, "problem", "versions", "2.14.1 and 0.29.2 are not compatible", "has 2.15.0 and 0.29.2")
    # another pair may be compatible
    findings = versions(tmp_path, monkeypatch, AS_LOCKED | {"torch": "2.14.1", "torchvision": "0.29.0"})
    assert problems(findings) == []
    assert sum(one.level == "warning" for one in findings) == 2


def test_python_is_new_enough(tmp_path, monkeypatch):
    findings = versions(tmp_path, monkeypatch, AS_LOCKED, LOCK.replace("3.11", "99.1"))
    expect(findings, "problem", "versions", "is too old", "99.1 or newer", subject="python")


def test_the_projects_own_lock_is_parsed(monkeypatch):
    lock = PROJECT / "requirements.txt"
    named = {line.partition("#")[0].strip() for line in (PROJECT / "requirements.in").read_text().splitlines()} - {""}
    wanted = [Requirement(line) for line in named]
    names = {one.name for one in wanted if not one.marker or one.marker.evaluate()}
    assert set(doctor._locked(lock.read_text())) == names


def test_what_the_lock_has_for_other_platforms_is_not_missed(tmp_path, monkeypatch):
    here, elsewhere = f"sys_platform == '{sys.platform}'", f"sys_platform != '{sys.platform}'"
    pins = (f"timm==1.0.31 ; {here}", f"timm==0.9.0 ; {elsewhere}", f"gone==1.0 ; {elsewhere}", "numpy[x, y]==2.4.6")
    lock = "".join(f"{pin} \\\n    --hash=sha256:0133\n    # via -r requirements.in\n" for pin in pins)
    assert doctor._locked(lock) == {"timm": "1.0.31", "numpy": "2.4.6"}
    findings = versions(tmp_path, monkeypatch, AS_LOCKED, lock)
    assert {one.level for one in findings} == {"ok"}
    expect(findings, "ok", "versions", "2 have the version in", subject="packages")


def test_packages_of_the_tests_may_be_missing():
    checks = (PROJECT / "requirements.in").read_text().partition("# checks\n")[2].splitlines()
    assert checks
    assert {re.match(r"[\w-]+", line)[0] for line in checks} <= doctor.OPTIONAL


def test_a_missing_lock_is_reported(tmp_path, raw):
    findings = doctor.examine(plan(tmp_path, row(raw), lock=str(tmp_path / "none.txt")), budget_s=0)
    expect(findings, "problem", "versions", "none.txt: no such file")


# --- gpu --------------------------------------------------------------------------------------------------------------


class FakeMatrix:
    """A matrix on a GPU that may fail to compute."""

    def __init__(self, error):
        self.error = error

    def matmul(self, other):
        if self.error:
            raise RuntimeError(self.error)
        return self

    def cpu(self):
        return self


def fake_torch(monkeypatch, available, built="13.2", free=80e9, error="", warning="", gpus=1, mps=False):
    def is_available():
        if warning:
            warnings.warn(warning, UserWarning, stacklevel=1)
        return available

    cuda = SimpleNamespace(
        is_available=is_available,
        device_count=lambda: gpus,
        get_device_name=lambda number: "NVIDIA Test",
        mem_get_info=lambda number: (free, 100e9),
    )
    fake = SimpleNamespace(
        __version__="2.15.0",
        version=SimpleNamespace(cuda=built),
        cuda=cuda,
        backends=SimpleNamespace(mps=SimpleNamespace(is_built=lambda: mps, is_available=lambda: mps)),
        ones=lambda *shape, device: FakeMatrix(error if device in (f"cuda:{gpus - 1}", "mps") else ""),
    )
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace())


def fake_driver(tmp_path, monkeypatch, prints="NVIDIA Test, 470.10"):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{prints}'\n" if prints else "#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_a_gpu_that_works(monkeypatch):
    fake_torch(monkeypatch, available=True)
    expect(doctor.check_device("auto"), "ok", "gpu", "NVIDIA Test, 80.0 GB of 100.0 GB free", subject="cuda:0")
    expect(doctor.check_device("cpu"), "ok", "gpu", "CPU, as configured", subject="device")
    fake_torch(monkeypatch, available=True, free=1e9)
    expect(
        doctor.check_device("cuda"), "warning", "gpu", "1.0 GB of 100.0 GB free; stop other processes", subject="cuda:0"
    )
    fake_torch(monkeypatch, available=True, error="no kernel image is available\nmore")
    expect(
        doctor.check_device("auto"), "problem", "gpu", "does not work (no kernel image is available)", subject="cuda:0"
    )


def test_a_second_gpu_that_does_not_work_is_not_needed(monkeypatch):
    fake_torch(monkeypatch, available=True, error="no kernel image is available", gpus=2)
    findings = doctor.check_device("auto")
    expect(findings, "ok", "gpu", "80.0 GB of 100.0 GB free", subject="cuda:0")
    expect(findings, "warning", "gpu", "does not work", "the first one is used", subject="cuda:1")


def test_the_gpu_of_a_mac(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    fake_torch(monkeypatch, available=False, built=None, mps=True)
    for device in ("auto", "mps"):
        findings = doctor.check_device(device)
        expect(findings, "ok", "gpu", "torch 2.15.0, built for the GPU of a Mac", subject="torch")
        expect(findings, "ok", "gpu", "for encoders in fp32; methods run on the CPU", subject="mps")
        assert len(findings) == 2
    expect(doctor.check_device("cpu"), "ok", "gpu", "CPU, as configured", subject="device")
    expect(doctor.check_device("cuda"), "problem", "gpu", "torch sees no GPU", subject="device")
    fake_torch(monkeypatch, available=False, built=None, mps=True, error="no kernel\nmore")
    expect(doctor.check_device("auto"), "problem", "gpu", "does not work (no kernel); set `device: cpu`", subject="mps")
    # another machine
    fake_driver(tmp_path, monkeypatch)
    fake_torch(monkeypatch, available=True)
    found = doctor.check_device("mps")
    expect(found, "problem", "gpu", "device is mps, but torch sees no GPU of a Mac", subject="device")
    assert len(found) == 2


def test_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    fake_torch(monkeypatch, available=False)
    findings = doctor.check_device("auto", ("uni", "spacrd"))
    expect(findings, "ok", "gpu", "no GPU; everything runs on the CPU", "uni, spacrd would be faster", subject="device")
    expect(doctor.check_device("cuda"), "problem", "gpu", "torch sees no GPU", subject="device")
    expect(doctor.check_device("gpu"), "problem", "gpu", "device 'gpu'", subject="device")
    # a login node needs none
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    expect(doctor.check_device("cuda"), "warning", "gpu", "jobs request one from Slurm", subject="device")
    expect(doctor.check_device("gpu"), "problem", "gpu", "device 'gpu'", subject="device")


def test_a_gpu_that_torch_does_not_see(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake_driver(tmp_path, monkeypatch)
    fake_torch(monkeypatch, available=False, built=None)
    seen = "this machine has NVIDIA Test (driver 470.10), but torch does not see it"
    expect(doctor.check_device("auto"), "warning", "gpu", seen, "for CPUs only; install", subject="driver")
    fake_torch(monkeypatch, available=False)
    expect(doctor.check_device("auto"), "warning", "gpu", seen, "driver is most likely too old for CUDA 13.2")
    fake_torch(monkeypatch, available=False, warning="CUDA initialization: too old (found version 11040)\nmore")
    expect(
        doctor.check_device("auto"), "warning", "gpu", "CUDA 13.2 (CUDA initialization: too old (found version 11040));"
    )
    findings = doctor.check_device("cuda")
    expect(findings, "problem", "gpu", seen, subject="driver")
    expect(findings, "problem", "gpu", "torch sees no GPU", subject="device")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    expect(doctor.check_device("auto"), "warning", "gpu", seen, "CUDA_VISIBLE_DEVICES is ''; unset it")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    expect(doctor.check_device("auto"), "warning", "gpu", "driver is most likely too old for CUDA 13.2")
    fake_torch(monkeypatch, available=False)
    expect(doctor.check_device("auto"), "warning", "gpu", seen, "CUDA_VISIBLE_DEVICES is '7', which is no GPU")
    # the tool without a GPU
    fake_driver(tmp_path, monkeypatch, prints="")
    assert {one.level for one in doctor.check_device("auto")} == {"ok"}


def test_torchvision_of_another_torch(tmp_path, monkeypatch):
    fake_torch(monkeypatch, available=False)
    monkeypatch.setitem(sys.modules, "torchvision", None)  # import raises
    findings = doctor.examine(plan(tmp_path))
    expect(findings, "problem", "gpu", "torchvision", "the run would fail here too", subject="torch")


def test_what_benefits_from_a_gpu():
    content = {
        "encoders": HED | {"uni": {"model": "uni", "weights": "hub"}},
        "methods": {"linear": {"gpu": False}, "spacrd": {"gpu": True}, "random": {}},
    }
    assert doctor._benefiting(content) == ("uni", "spacrd")


# --- encoders ---------------------------------------------------------------------------------------------------------


def encoder(tmp_path, **options):
    return doctor.examine(plan(tmp_path, encoders={"mine": options}))


def test_local_weights(tmp_path):
    good = tmp_path / "good.safetensors"
    save_file({"w": np.zeros((100, 10), np.float32)}, good)
    expect(
        encoder(tmp_path, model="resnet50", weights=str(good)),
        "ok",
        "encoders",
        "good.safetensors, 4.1 kB",
        subject="mine",
    )
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:-100])
    expect(
        encoder(tmp_path, model="resnet50", weights=str(cut)), "problem", "encoders", "cut.safetensors", subject="mine"
    )
    page = tmp_path / "page.pt"
    page.write_text("<html>please log in</html>")
    expect(
        encoder(tmp_path, model="resnet50", weights=str(page)),
        "problem",
        "encoders",
        "page.pt: not a complete file of torch",
    )
    gone = str(tmp_path / "gone.pt")
    expect(
        encoder(tmp_path, model="resnet50", weights=gone),
        "problem",
        "encoders",
        f"no weights file {gone}",
        subject="mine",
    )


def test_torch_files_of_both_formats(tmp_path):
    import torch

    new, old = tmp_path / "new.pt", tmp_path / "old.pth"
    torch.save({"w": torch.zeros(3)}, new)
    torch.save({"w": torch.zeros(3)}, old, _use_new_zipfile_serialization=False)
    for path in (new, old):
        expect(encoder(tmp_path, model="resnet50", weights=str(path)), "ok", "encoders", path.name, subject="mine")
    new.write_bytes(new.read_bytes()[:-200])
    expect(encoder(tmp_path, model="resnet50", weights=str(new)), "problem", "encoders", "new.pt: not a complete file")


def test_the_hub_is_queried_in_parallel(tmp_path, monkeypatch):
    together = threading.Barrier(3, timeout=20)  # each waits for the others
    monkeypatch.setattr(encoders, "access", lambda options: together.wait() and None)
    asked = {name: {"model": "uni", "weights": "hub"} for name in ("one", "two", "three")}
    findings = doctor.examine(plan(tmp_path, encoders=asked))
    assert [one.subject for one in findings if one.check == "encoders"] == ["one", "two", "three"]
    assert problems(findings) == []


def test_weights_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "access", lambda options: "request access on https://huggingface.co/MahmoodLab/UNI")
    expect(
        encoder(tmp_path, model="uni", weights="hub"), "problem", "encoders", "https://huggingface.co/MahmoodLab/UNI"
    )
    monkeypatch.setattr(encoders, "access", lambda options: None)
    for given in ({"weights": "hub"}, {}):  # which is the default
        expect(encoder(tmp_path, model="uni", **given), "ok", "encoders", "available from the hub", subject="mine")
    expect(encoder(tmp_path, model="uni", weights="random"), "warning", "encoders", "meaningless", subject="mine")


# --- sections ---------------------------------------------------------------------------------------------------------


def test_missing_files_are_reported_one_by_one(tmp_path, raw):
    findings = doctor.examine(plan(tmp_path, row(raw, image="gone.jpg", labels="gone.csv")))
    expect(findings, "problem", "sections", "column image: gone.jpg does not exist", subject="S1")
    expect(findings, "problem", "sections", "column labels: gone.csv does not exist", subject="S1")
    assert len(problems(findings)) == 2


def test_files_that_the_workflow_fetches_are_no_problem(tmp_path, raw):
    to_fetch = tmp_path / "public"
    names = ("ST-cnts/S1.tsv.gz", "ST-spotfiles/S1_selection.tsv", "ST-imgs/S1.jpg")
    public = {str(to_fetch / name): f"https://example.org/{name}" for name in names} | {
        str(to_fetch / "other"): "https://no.org"
    }
    wanted = row(to_fetch, labels=str(raw / "ST-pat/lbl/S1_labeled_coordinates.tsv"))
    findings = doctor.examine(plan(tmp_path, wanted, public=public))
    assert problems(findings) == []
    expect(findings, "ok", "sections", "get 3 missing files from example.org", subject="S1")
    expect(findings, "ok", "disk", "not counted: 3 missing files")
    # files that exist are read
    for name in names[:2]:
        (to_fetch / name).parent.mkdir(parents=True)
        shutil.copy(raw / name, to_fetch / name)
    findings = doctor.examine(plan(tmp_path, wanted, public=public))
    assert problems(findings) == []
    expect(findings, "ok", "sections", "get 1 missing file from example.org", subject="S1")
    expect(findings, "ok", "sections", "60 genes", subject="S1")
    expect(findings, "ok", "sections", "labels of 60", subject="S1")
    assert not [one for one in findings if "fit the image" in one.message]


def test_a_folder_that_the_workflow_fetches(tmp_path):
    public = {"data/public/v/filtered_feature_bc_matrix.h5": "https://a.org/1", "data/public/v/spatial/x.csv": "b.zip"}
    wanted = row(tmp_path, platform="visium", path="data/public/v", image="", labels="")
    findings = doctor.examine(plan(tmp_path, wanted, public=public))
    assert problems(findings) == []
    expect(findings, "ok", "sections", "get 2 missing files from a.org, b.zip", subject="S1")


def test_damaged_counts(tmp_path, raw):
    root = tmp_path / "raw"
    shutil.copytree(raw, root)
    (root / "ST-cnts/S1.tsv.gz").write_bytes((raw / "ST-cnts/S1.tsv.gz").read_bytes()[:500])
    findings = doctor.examine(plan(tmp_path, row(root)))
    expect(findings, "problem", "sections", "S1.tsv.gz", subject="S1")
    assert len(problems(findings)) == 1


@pytest.mark.parametrize(
    "error", [RuntimeError("odd"), KeyError("obsm"), PermissionError(13, "Permission denied", "S1.tsv")]
)
def test_one_broken_section_does_not_hide_the_others(tmp_path, raw, monkeypatch, error):
    real = readers.read_section

    def read(wanted):
        if wanted["section"] == "S2":
            raise error
        return real(wanted)

    monkeypatch.setattr(readers, "read_section", read)
    findings = doctor.examine(plan(tmp_path, row(raw, section="S2"), row(raw)))
    expect(findings, "problem", "sections", str(error.args[-1]), subject="S2")
    expect(findings, "ok", "sections", "60 genes", subject="S1")


def test_an_image_of_something_else(tmp_path, raw):
    findings = doctor.examine(plan(tmp_path, row(raw, image_scale="3")))
    expect(findings, "problem", "sections", "outside the image", "image_scale", subject="S1")
    (tmp_path / "S1.jpg").write_text("no image")
    findings = doctor.examine(plan(tmp_path, row(raw, image=str(tmp_path / "S1.jpg"))))
    expect(findings, "problem", "sections", "S1.jpg: not a TIFF, JPEG or PNG image", subject="S1")
    expect(findings, "ok", "sections", "labels of 60", subject="S1")


def test_a_section_without_an_image(tmp_path, raw):
    findings = doctor.examine(plan(tmp_path, row(raw, image="")))
    expect(findings, "problem", "sections", "no image for encoder hed_texture", "column image", subject="S1")
    assert problems(doctor.examine(plan(tmp_path, row(raw, image=""), encoders={}))) == []
    # other sections have the encoder, this one has none
    assert problems(doctor.examine(plan(tmp_path, row(raw, image=""), seen_by={"S1": [], "S2": ["hed_texture"]}))) == []


def test_the_vendors_image_is_found_where_the_reader_finds_it(tmp_path, monkeypatch):
    inside = tmp_path / "V1" / "outs" / "spatial"
    inside.mkdir(parents=True)
    (inside / "tissue_hires_image.png").touch()
    (inside / "scalefactors_json.json").write_text('{"tissue_hires_scalef": 0.1}')
    compared = []
    monkeypatch.setattr(placement, "check_placement", lambda spots, vendor_image: compared.append(vendor_image) or [])
    doctor._check_placement(row(tmp_path, platform="visium", path=str(tmp_path / "V1"), image="he.tif"), None)
    doctor._check_placement(row(tmp_path), None)
    assert compared == [str(inside / "tissue_hires_image.png"), ""]


def test_labels_that_do_not_fit(tmp_path, raw):
    names = readers.read_section(row(raw)).obs_names
    path = tmp_path / "labels.csv"
    for text, fragments in [
        ("spot,region\n999x999,tumor\n", ("labels.csv: no id matches section S1",)),
        (f"spot,region\n{names[0]},blob\n{names[1]},thing\n", ("unknown words: blob, thing", str(WORDS))),
    ]:
        path.write_text(text)
        findings = doctor.examine(plan(tmp_path, row(raw, labels=str(path))))
        expect(findings, "problem", "sections", *fragments, subject="S1")


def test_labels_of_one_class(tmp_path, raw):
    names = readers.read_section(row(raw)).obs_names
    path = tmp_path / "labels.csv"
    path.write_text("spot,region\n" + "".join(f"{name},stroma\n" for name in names[:20]))
    findings = doctor.examine(plan(tmp_path, row(raw, labels=str(path))))
    expect(
        findings, "warning", "sections", "labels of 20 of 60 spots, all of one class; the section cannot", subject="S1"
    )
    # a healthy reference is of one class
    findings = doctor.examine(plan(tmp_path, row(raw, labels=str(path), normal="yes")))
    expect(findings, "ok", "sections", "labels of 20 of 60 spots", subject="S1")
    path.write_text(f"spot,region\n{names[0]},unknown\n")
    findings = doctor.examine(plan(tmp_path, row(raw, labels=str(path))))
    expect(findings, "warning", "sections", "labels of 0 of 60 spots, none known", subject="S1")


def test_what_is_drawn_is_counted_and_one_class_is_told(tmp_path, raw):
    names = readers.read_section(row(raw)).obs_names
    path = tmp_path / "S1.drawn.tsv"
    path.write_text(f"spot\tlabel\n{names[0]}\tcancer\n{names[1]}\tcancer\n{names[59]}\tother\n")
    findings = doctor.examine(plan(tmp_path, row(raw, drawn=str(path))))
    expect(findings, "ok", "sections", "drawn: 2 cancer, 1 other of 60 spots, 2 regions", subject="S1")
    path.write_text(f"spot\tlabel\n{names[0]}\tcancer\n")
    findings = doctor.examine(plan(tmp_path, row(raw, drawn=str(path))))
    expect(findings, "warning", "sections", "drawn: 1 cancer, 0 other of 60 spots, 1 regions; draw both", subject="S1")
    path.write_text("spot\tlabel\n999x999\tcancer\n")
    findings = doctor.examine(plan(tmp_path, row(raw, drawn=str(path))))
    expect(findings, "problem", "sections", "no id matches section S1", subject="S1")


def test_labels_that_say_the_opposite_of_a_drawing_are_told(tmp_path, raw):
    names = readers.read_section(row(raw)).obs_names
    drawn, labels = tmp_path / "S1.drawn.tsv", tmp_path / "S1.labels.tsv"
    drawn.write_text("spot\tlabel\n" + "".join(f"{name}\tcancer\n" for name in names[:5]) + f"{names[59]}\tother\n")
    both = row(raw, drawn=str(drawn), labels=str(labels))
    for wrong, level in ((3, "warning"), (2, "ok")):
        words = ["stroma"] * wrong + ["tumor"] * (4 - wrong)
        known = "".join(f"{name}\t{word}\n" for name, word in zip(names[:4], words, strict=True))
        labels.write_text(f"spot\tregion\n{known}{names[58]}\ttumor\n{names[59]}\tstroma\n")
        findings = doctor.examine(plan(tmp_path, both))
        expect(findings, level, "sections", "drawn: 5 cancer, 1 other", subject="S1")
        told = [one.message for one in findings if "opposite" in one.message]
        # who draws does not learn the share that fits
        assert len(told) == (level == "warning")
        assert all("opposite of 3 of 4 spots drawn as cancer: check" in text for text in told)


def test_the_words_of_the_cohort_are_used(tmp_path, raw):
    names = readers.read_section(row(raw)).obs_names
    words, path = tmp_path / "words.tsv", tmp_path / "labels.csv"
    words.write_text("word\tlabel\tcohort\nedge\t1\tmine\nfat\t0\n")
    path.write_text(f"spot,region\n{names[0]},edge\n{names[1]},fat\n")
    content = plan(tmp_path, row(raw, labels=str(path), cohort="mine"), label_words=str(words))
    expect(doctor.examine(content), "ok", "sections", "labels of 2 of 60 spots", subject="S1")
    content = plan(tmp_path, row(raw, labels=str(path), cohort="other"), label_words=str(words))
    expect(doctor.examine(content), "problem", "sections", "unknown words: edge", subject="S1")


def test_warnings_of_the_reader_are_findings(tmp_path, raw):
    findings = doctor.examine(plan(tmp_path, row(raw, um_per_px="2")))
    expect(
        findings,
        "warning",
        "sections",
        "2 µm per px: column um_per_px alone, but array pitch of 200 µm gives 1.098",
        subject="S1",
    )


def test_results_that_are_up_to_date_are_used(tmp_path, raw, monkeypatch):
    made = tmp_path / "results" / "sections" / "S1" / "spots.h5ad"
    spots = readers.read_section(row(raw))
    write_h5ad(spots, made)
    read = []
    real = readers.read_section

    def counted(wanted):
        read.append(wanted["section"])
        return real(wanted)

    monkeypatch.setattr(readers, "read_section", counted)
    assert problems(doctor.examine(plan(tmp_path, row(raw)))) == []
    assert read == []
    # the sheet changed
    doctor.examine(plan(tmp_path, row(raw, spot_um="90")))
    doctor.examine(plan(tmp_path, row(raw, image=str(raw / "ST-imgs" / ".." / "ST-imgs" / "S1.jpg"))))
    assert read == ["S1", "S1"]
    # the raw files are newer
    os.utime(made, (1, 1))
    doctor.examine(plan(tmp_path, row(raw)))
    assert read == ["S1"] * 3


def test_sections_are_read_within_the_time_limit(tmp_path, raw, monkeypatch):
    monkeypatch.setattr(readers, "read_section", lambda wanted: pytest.fail("read"))
    rows = [row(raw), row(raw, section="S2"), row(raw, section="S3", image="gone.jpg")]
    findings = doctor.examine(plan(tmp_path, *rows), budget_s=0)
    expect(findings, "warning", "sections", "not read within the time limit", "S1, S2", subject="time")
    expect(findings, "problem", "sections", "gone.jpg does not exist", subject="S3")
    expect(findings, "ok", "memory", "estimated as 6 times its files")


def test_the_small_sections_are_read_first(tmp_path, raw, monkeypatch):
    sizes = {"large": 30.0, "small": 1.0, "huge": 1e9}
    monkeypatch.setattr(doctor, "_seconds_to_read", lambda wanted, folder: sizes[wanted["section"]])
    seen = []
    monkeypatch.setattr(doctor, "_check_section", lambda wanted, *more: seen.append(wanted["section"]) or [])
    findings = doctor.examine(plan(tmp_path, *(row(raw, section=name) for name in sizes)), budget_s=1000)
    assert seen == ["small", "large"]
    expect(findings, "warning", "sections", "not read within the time limit", "known to exist: huge", subject="time")


def test_a_xenium_section_is_read_as_spots(tmp_path):
    from ctrflow.simulate.vendors import write_xenium

    section = simulate.simulate_section("xenium", spots=40, genes=60, seed=2)
    write_xenium(section, tmp_path / "X1")
    wanted = row(tmp_path, platform="xenium", path=str(tmp_path / "X1"), image="", labels="")
    findings = doctor.examine(plan(tmp_path, wanted, encoders={}))
    assert problems(findings) == []
    shown = expect(findings, "ok", "sections", "µm per px", subject="S1").message
    assert 80 < int(shown.replace(",", "").split()[0]) < 300  # spots, not cells, some 10 of which are in each
    findings = doctor.examine(plan(tmp_path, wanted | {"pool": "discs"}, encoders={}))
    assert 30 < int(expect(findings, "ok", "sections", "µm per px", subject="S1").message.split()[0]) < 80


def test_cells_that_were_pooled_in_another_way_are_read_again():
    wanted = {"section": "S1", "platform": "xenium", "path": "X1"}
    made = {"platform": "xenium", "spot_um": 55.0}
    assert doctor._as_in_sheet(made | {"pool": "discs"}, wanted | {"pool": "discs"})
    assert doctor._as_in_sheet(made | {"pool": "hexagons"}, wanted | {"pool": ""})
    assert not doctor._as_in_sheet(made | {"pool": "discs"}, wanted | {"pool": ""})
    assert not doctor._as_in_sheet(made, wanted)  # made before there were hexagons
    assert doctor._as_in_sheet({"platform": "st"}, {"section": "S1", "platform": "st", "pool": ""})


# --- the study as a whole ---------------------------------------------------------------------------------------------


def h5ad_row(tmp_path, section, raw, names, **more):
    """A section with the counts of the raw one, its genes under other names."""
    spots = readers.read_section(row(raw))
    adata = AnnData(spots.X, obs=spots.obs[[]], obsm=dict(spots.obsm))
    adata.var_names = names
    path = tmp_path / f"{section}.h5ad"
    adata.write_h5ad(path)
    given = {"section": section, "platform": "h5ad", "path": str(path), "um_per_px": "1.1", "spot_um": "100"}
    return row(raw) | given | {"image": "", "labels": ""} | more


def fold_of(learned, targets, labelled=()):
    return {"task": "map", "learned": learned, "labelled": [*labelled], "targets": targets}


def test_sections_are_held_against_each_other(tmp_path, raw):
    names = readers.read_section(row(raw)).var_names
    ids = [f"ENSG{number:011d}" for number in range(len(names))]
    rows = [row(raw), row(raw, section="S2", patient="P2"), h5ad_row(tmp_path, "E", raw, ids)]
    rows.append(row(raw, section="S9", image="gone.jpg"))
    content = plan(tmp_path, *rows, compared=[fold_of(["S1", "S2"], ["E"], ["S1", "S2"])], encoders={})
    findings = doctor.examine(content)
    table = expect(
        findings, "problem", "study", "not compared, as not read: 1 of 4 sections (S9)", subject="gene names"
    )
    lines = table.message.splitlines()
    assert lines[1].split() == ["human", "gene", "symbols", names[0], "60,", "the", "same", "S1,", "S2"]
    assert lines[2].split() == ["human", "Ensembl", "ids", ids[0], "60", "E"]
    task = expect(findings, "problem", "study", "the run would stop: S1, S2, E have no gene in common", subject="map")
    assert "S1 and E share 0 of 60 genes (0%); gene symbols in S1" in task.message
    assert "give E gene symbols too" in task.message
    expect(findings, "ok", "study", "st: ", "(S1, S2); h5ad: ", subject="depth")
    words = expect(
        findings, "ok", "study", "cancer: ", "other: ", "invasive cancer (34 spots, 2 sections)", subject="labels"
    )
    assert "no cancer spot" not in words.message


def test_symbols_ids_and_prefixes_are_told_in_one_look(tmp_path, raw, caplog):
    """What is the same and what is not: one table, and what follows from it just below."""
    caplog.set_level("INFO")
    names = list(readers.read_section(row(raw)).var_names)
    ids = [f"ENSG{number:011d}" for number in range(len(names))]
    rows = [
        h5ad_row(tmp_path, "symbols", raw, names),
        h5ad_row(tmp_path, "prefixed", raw, [f"GRCh38_{name}" for name in names]),
        h5ad_row(tmp_path, "ids", raw, ids),
    ]
    folds = [fold_of(["symbols"], ["prefixed"]), fold_of(["symbols"], ["ids"])]
    shown = doctor.page(doctor.examine(plan(tmp_path, *rows, compared=folds, encoders={})))
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "prefixed.h5ad: the prefix GRCh38_ of 60 genes is left out" in " ".join(lines)
    start = lines.index("problem study gene names named by such as genes sections")
    assert lines[start + 1 : start + 4] == [
        f"human gene symbols {names[0]} 60, the same symbols, prefixed",
        f"human Ensembl ids {ids[0]} 60 ids",
        "problem study map the run would stop: symbols, ids have no gene in common",
    ]
    told = " ".join(lines[start + 4 :])
    assert told.startswith("symbols and ids share 0 of 60 genes (0%); gene symbols in symbols (")
    assert "give ids gene symbols too" in told


def test_a_broken_part_does_not_hide_the_rest_of_the_study(tmp_path, raw):
    rows = [row(raw), row(raw, section="S2", patient="P2")]
    content = plan(tmp_path, *rows, markers=[["S1", str(tmp_path / "gone.tsv"), ["tumour"]]], encoders={})
    findings = doctor.examine(content)
    expect(findings, "problem", "study", "gone.tsv: no such file", subject="markers")
    expect(findings, "ok", "study", "60, the same", "S1, S2", subject="gene names")


def test_what_was_done_to_names_of_genes_is_told(tmp_path, raw, monkeypatch, caplog):
    """As readers log it: not only what they warn of."""
    caplog.set_level("INFO")
    real = readers.read_section

    def read(wanted):
        genes.of_one_species([f"hg19_{name}" for name in "ABC"], "S1.h5ad")
        genes.of_one_species(["hg19_A", "mm10_A"], "S1.h5ad")
        return real(wanted)

    monkeypatch.setattr(readers, "read_section", read)
    findings = doctor.examine(plan(tmp_path, row(raw)))
    expect(findings, "ok", "sections", "S1.h5ad: the prefix hg19_ of 3 genes is left out", subject="S1")
    expect(findings, "warning", "sections", "S1.h5ad: genes of 2 genomes", subject="S1")


# --- given models -----------------------------------------------------------------------------------------------------


def given_model(path, genes, **changed):
    """A model file of two patients with these genes, each gene as common as its place; without the model's tensors."""
    facts = {
        "method": "linear", "modalities": ["gene"], "genes": genes, "library_genes": genes, "tissues": ["breast"],
        "platforms": ["st"], "sections": ["A1", "A2", "B1"], "patients": ["A", "B"], "likeness": [0.9, 0.95],
        "depth": [40.0, 90.0], "least_genes": 20, "gate": {}, "picture": [], "calibration": {},
    }  # fmt: skip
    write_safetensors({PROFILE: np.arange(len(genes), dtype=np.float32)}, facts | changed, path)
    return str(path)


def section_of(genes, mean, platform="st"):
    spots = AnnData(np.random.default_rng(0).poisson(mean, (50, len(genes))).astype(np.float32))
    spots.var_names, spots.uns["section"] = genes, {"section": "S1", "platform": platform}
    return spots


GENES = [f"G{n}" for n in range(40)]


def test_the_model_of_a_section_is_named(tmp_path):
    path = given_model(tmp_path / "m.safetensors", GENES)
    (found,) = doctor.check_model(section_of(GENES, np.arange(40) / 10), path)
    assert (found.level, found.check, found.subject) == ("ok", "model", "S1")
    assert found.message.startswith(
        f"{path}: linear, trained on 3 sections of 2 patients (breast, st); 40 of its 40 genes"
    )
    (other,) = doctor.check_model(section_of(GENES[:25], np.arange(25) / 5, "visium"), path)
    assert "25 of its 40 genes are measured" in other.message
    assert other.message.endswith("the section is visium")


def test_a_section_unlike_what_a_model_learned_from_is_a_warning(tmp_path):
    path = given_model(tmp_path / "m.safetensors", GENES)
    named, unlike, deep = doctor.check_model(section_of(GENES, np.arange(40)[::-1] * 10.0), path)
    assert (named.level, unlike.level, deep.level) == ("ok", "warning", "warning")
    assert f"unlike what {path} learned from: its genes correlate" in unlike.message
    assert "counts, those of the training sections 40 to 90" in deep.message


def test_too_few_genes_for_a_model_are_a_problem(tmp_path):
    path = given_model(tmp_path / "m.safetensors", GENES)
    with pytest.raises(InputError, match="section S1 measures 19 of the model's 40 genes"):
        doctor.check_model(section_of(GENES[:19], 2.0), path)
    assert doctor.check_model(section_of(GENES[:19], np.arange(19) / 5), path, 0.1)[0].level == "ok"


def test_the_doctor_examines_every_model_that_scores_a_section(tmp_path, raw):
    fits = given_model(tmp_path / "fits.safetensors", ["EPCAM", *GENES])
    fails = given_model(tmp_path / "fails.safetensors", GENES)
    rows = [row(raw), row(raw, section="S2", patient="P2")]
    given = {"S1": [[fits, 0.01], [fails, None]], "S2": [[fits, 0.01]]}
    findings = doctor.examine(plan(tmp_path, *rows, given=given))
    expect(findings, "ok", "model", fits, "1 of its 41 genes are measured", subject="S1")
    expect(findings, "problem", "model", fails, "section S1 measures 0 of the model's 40 genes", subject="S1")
    expect(findings, "ok", "model", fits, "1 of its 41 genes are measured", subject="S2")
    lines = next(one for one in findings if one.subject == "gene names").message.splitlines()
    assert [line.split()[-1] for line in lines[2:]] == [fits, fails]  # each once in the table of the study


# --- disk and memory --------------------------------------------------------------------------------------------------


def test_disk_space(tmp_path, monkeypatch):
    extents = [Extent("A", 1000, 0.4e9, True), Extent("B", 0, 0.6e9, False)]
    options = {"two": {"patch_um": [100, 200]}}
    # sections 0.8 x 1 GB; embeddings 1,000 spots x 4 bytes x 2,048 x 2 fields = 16.384 MB: 816.4 MB at least. Exports
    # need another 800 MB, and each of 3 folds all of it again: 816.384 + 800 + 3 x 816.384 = 4,065.5 MB
    for free, level in [(816e6, "problem"), (817e6, "warning"), (4.06e9, "warning"), (4.07e9, "ok")]:
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        (found,) = doctor.check_disk(tmp_path / "not" / "yet", extents, options, folds=3, n_missing=2)
        assert found.level == level
        assert "816.4 MB" in found.message
        assert "4.1 GB" in found.message
        assert "not counted: 2 missing files" in found.message
        assert ("free some space" in found.message) == (level != "ok")


def test_existing_results_need_no_space(tmp_path, monkeypatch):
    extents = [Extent("A", 1000, 1e9, True), Extent("B", 1000, 1e9, True)]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    # each section 0.8 GB, each embedding 1,000 x 4 x 2,048 = 8.192 MB
    for path, least in [
        ("nothing", "1.6 GB"), ("sections/A/spots.h5ad", "816.4 MB"), ("sections/B/spots.h5ad", "16.4 MB"),
        ("embeddings/hed_texture/A.h5ad", "8.2 MB"), ("embeddings/hed_texture/B.h5ad", "0 bytes"),
    ]:  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
        (found,) = doctor.check_disk(tmp_path, extents, HED, folds=1)
        assert f"need another {least} for sections and embeddings" in found.message
    assert found.level == "warning"  # folds and exports


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (found,) = doctor.check_disk(tmp_path / "results", [], {}, folds=1)
    assert (found.level, found.check) == ("problem", "disk")
    assert f"{tmp_path}: cannot be written to" in found.message


def test_memory_for_the_largest_section(monkeypatch):
    monkeypatch.setattr(doctor, "memory_bytes", lambda: 3.5e9)
    small = Extent("small", 10, 1e6, True)
    # 1 GB of libraries and three copies
    for large, level in [(0.8e9, "ok"), (0.9e9, "problem")]:
        (found,) = doctor.check_memory([small, Extent("large", 10, large, True)])
        assert found.level == level
        assert "the largest section, large, needs about 3." in found.message
    (found,) = doctor.check_memory([small, Extent("large", 10, 0.9e9, False)])
    assert found.level == "warning"
    assert "estimated" in found.message
    assert doctor.check_memory([]) == []


def test_the_memory_of_this_machine():
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        pytest.skip("this system has no /proc/meminfo")
    total = (
        int(next(line for line in meminfo.read_text().splitlines() if line.startswith("MemTotal")).split()[1]) * 1024
    )
    assert 1e8 < doctor.memory_bytes() <= total * 1.05
