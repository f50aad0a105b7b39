"""Model files and weights that are truncated, of another panel or program, or more than numbers."""

import json
import struct

import anndata
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save, save_file
from scipy import sparse

from ctrflow import storage
from ctrflow.encoders import weights
from ctrflow.folds import tables
from ctrflow.training import model_file

GENES = ["EPCAM", "KRT8", "KRT18", "VIM"]
METADATA = {
    "modalities": ["image", "gene"], "encoder": "uni", "encoder_digest": "a" * 64, "patch_px": 224,
    "patch_um": [[100.0]], "genes": GENES, "library_genes": [*GENES, "ACTB"], "sections": ["A1"], "patients": ["A"],
    "tissues": ["breast"], "platforms": ["st"], "simulated": False, "likeness": [], "depth": [900.0], "least_genes": 0,
    "gate": {}, "picture": [], "calibration": {},
}  # fmt: skip
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def written(edit, read=storage.read_safetensors):
    """A fault: a model file with edited bytes, without the checksum that ctrflow attaches."""

    def fault(folder):
        path = folder / "model.safetensors"
        storage.write_safetensors({"w": np.arange(6, dtype=np.float32)}, METADATA, path)
        content = edit(path.read_bytes())
        path.unlink()
        path.write_bytes(content)
        return lambda: read(path)

    return fault


def with_header(change):
    """An edit of the JSON header of a safetensors file."""

    def edit(content: bytes) -> bytes:
        (size,) = struct.unpack("<Q", content[:8])
        header = json.dumps(change(json.loads(content[8 : 8 + size]))).encode()
        return struct.pack("<Q", len(header)) + header + content[8 + size :]

    return edit


def tensor_of(**changed):
    return with_header(lambda header: header | {"w": header["w"] | changed})


def asked(genes, metadata=METADATA, **encoder):
    """A fault: a section with these genes and image features, scored by the model."""
    spots = anndata.AnnData(
        sparse.csr_matrix(np.ones((2, len(genes)), np.float32)),
        obs=pd.DataFrame(index=["s0", "s1"]),
        var=pd.DataFrame(index=genes),
        obsm={"spatial": np.zeros((2, 2))},
    )
    about = {"id": "uni", "digest": "a" * 64, "patch_px": 224, "patch_um": [100.0]} | encoder
    features = anndata.AnnData(np.ones((2, 3), np.float32), obs=spots.obs.copy(), uns={"encoder": about})
    view = tables.target_view({"T": spots}, {"T": features})
    return lambda _: lambda: model_file.target_table(view, metadata, "model.safetensors")


def local(name: str, content: bytes | None):
    """A fault: a weights file, checked as before a run."""

    def fault(folder):
        path = folder / name
        if content is not None:
            path.write_bytes(content)

        def read():
            problem = weights.access(weights.Source("https://example.org"), str(path), "uni")
            if problem:
                raise weights.InputError(problem)

        return read

    return fault


MODEL, AGAIN = "model.safetensors", "train or copy it again"
FAULTS = {
    "cut short": (written(lambda b: b[:-5]), [f"{MODEL}: not a complete safetensors file", AGAIN]),
    "cut within its header": (written(lambda b: b[:60]), [f"{MODEL}: not a complete safetensors file", AGAIN]),
    "of eight bytes": (written(lambda b: b[:8]), [f"{MODEL}: not a complete safetensors file", AGAIN]),
    "empty": (written(lambda b: b""), [f"{MODEL}: not a complete safetensors file", AGAIN]),
    "with extra bytes": (
        written(lambda b: b + b"rest"),
        [f"{MODEL}: not a complete safetensors file", AGAIN],
    ),
    "with a header of 8 EB": (
        written(lambda b: b"\xff" * 7 + b"\x7f" + b[8:]),
        [f"{MODEL}: not a complete safetensors file", AGAIN],
    ),
    "with a tensor of a billion numbers": (
        written(tensor_of(shape=[1_000_000_000])),
        [f"{MODEL}: not a complete safetensors file", AGAIN],
    ),
    "with a tensor behind its end": (
        written(tensor_of(shape=[1_000_000_000], data_offsets=[0, 4_000_000_000])),
        [f"{MODEL}: not a complete safetensors file", AGAIN],
    ),
    "with a tensor of another kind": (
        written(tensor_of(dtype="F128")),
        [f"{MODEL}: not a complete safetensors file", AGAIN],
    ),
    "of another program": (
        written(lambda _: save({"w": np.ones(3)})),
        [f"{MODEL}: a safetensors file, but not a model", "that ctrflow trained"],
    ),
    "a pointer of Git LFS": (written(lambda _: POINTER), [f"{MODEL}: not a complete safetensors file", AGAIN]),
    "a pickle": (written(lambda _: b"\x80\x04\x95\x00."), [f"{MODEL}: not a complete safetensors file", AGAIN]),
    "a login page": (
        written(lambda _: b"<!DOCTYPE html>", storage.read_safetensors_metadata),
        [f"{MODEL}: not a complete safetensors file", AGAIN],
    ),
    "of another panel": (
        asked(["CD3E", "CD4", "CD8A", "MS4A1"]),
        [f"{MODEL}: section T measures 0 of the model's 4 genes (0 %)", "missing: EPCAM", "split `transfer`"],
    ),
    "of a larger panel": (
        asked(["EPCAM", "CD4", "CD8A"]),
        [f"{MODEL}: section T measures 1 of the model's 4 genes (25 %)", "missing: KRT8", "min_gene_share"],
    ),
    "of a mouse": (
        asked(["Epcam", "Krt8", "Krt18", "Vim"]),
        [f"{MODEL}: section T", "upper and lower case, as between species", "the model's names"],
    ),
    "and genes with their place before them": (
        asked([f"GRCh38_{gene}" for gene in GENES]),
        [f"{MODEL}: section T measures 0", "missing: EPCAM, KRT8"],
    ),
    "and genes by Ensembl's ids": (
        asked([f"ENSG0000000000{n}" for n in range(4)]),
        [f"{MODEL}: section T", "the model has gene symbols", "the section Ensembl ids"],
    ),
    "and image features of other weights": (
        asked(GENES, digest="b" * 64),
        [f"{MODEL}: was trained on image features of encoder uni with digest aaaa", "configure the weights"],
    ),
    "and image features of smaller patches": (
        asked(GENES, patch_px=96),
        [f"{MODEL}: was trained on image features", "patch_px 224", "section T have 96"],
    ),
    "weights that are not there": (
        local("uni.safetensors", None),
        ["uni.safetensors: no such weights file", "correct"],
    ),
    "weights of another suffix": (
        local("uni.h5", b"x"),
        ["uni.h5: unknown suffix", ".pth file"],
    ),
    "weights in an empty file": (local("uni.bin", b""), ["uni.bin: an empty file", "download it again"]),
    "weights that are a pointer of Git LFS": (
        local("uni.safetensors", POINTER),
        ["uni.safetensors: not a complete safetensors file", "download it again"],
    ),
    "weights that are a login page": (
        local("uni.pt", b"<!DOCTYPE html>"),
        ["uni.pt: not a complete file of torch tensors", "download it again"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_it_is_reported(name, tmp_path, assert_error):
    fault, words = FAULTS[name]
    assert_error(fault(tmp_path), words)


def test_weights_given_as_a_model_are_rejected(tmp_path, assert_error):
    save_file({"w": np.zeros(2)}, tmp_path / "w.safetensors", metadata={"format": "pt"})
    assert_error(
        lambda: storage.read_safetensors_metadata(tmp_path / "w.safetensors"), ["w.safetensors", "that ctrflow trained"]
    )
