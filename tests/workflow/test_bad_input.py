"""Bad input as a user meets it: `snakemake` says once what is wrong, where, and what to do, and leaves nothing half done."""

import gzip
import io
import re
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml
from workflow.conftest import MINI, add_rows, copy, run, st_row, write_study

from ctrflow import readers

DATA = "data/mini"


def rewrite(path, old: str, new: str) -> None:
    """Replace a text that must be in a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def add_st(folder, name: str, table: str | None = None, words: str | None = None, **cells) -> None:
    """A sheet row with a copy of P1's raw files, its counts table or its regions replaced."""
    shutil.copy(folder / DATA / "ST-imgs" / "P1.jpg", folder / DATA / "ST-imgs" / f"{name}.jpg")
    shutil.copy(folder / DATA / "ST-spotfiles" / "P1_selection.tsv", folder / DATA / "ST-spotfiles" / f"{name}_selection.tsv")
    table = counts(folder).to_csv(sep="\t") if table is None else table
    (folder / DATA / "ST-cnts" / f"{name}.tsv.gz").write_bytes(gzip.compress(table.encode()))
    regions = pd.read_csv(folder / DATA / "ST-pat/lbl/P1_labeled_coordinates.tsv", sep="\t")
    regions = regions if words is None else regions.assign(label=words)
    regions.to_csv(folder / DATA / f"ST-pat/lbl/{name}_labeled_coordinates.tsv", sep="\t", index=False)
    add_rows(folder, [st_row(name, cohort="spoilt") | cells])


def counts(folder) -> pd.DataFrame:
    """P1's counts table, spots x genes."""
    return pd.read_csv(folder / DATA / "ST-cnts" / "P1.tsv.gz", sep="\t", index_col=0)


def add_h5ad(folder, name: str, X) -> None:
    """A sheet row with P1 as an .h5ad with another matrix."""
    spots = readers.read_section({"section": name, "platform": "st", "path": str(folder / DATA / "ST-cnts" / "P1.tsv.gz")})
    spots.X = X(spots.X.toarray())
    del spots.uns["section"]["um_per_px"]
    spots.write_h5ad(folder / DATA / f"{name}.h5ad")
    add_rows(folder, [{"section": name, "platform": "h5ad", "path": f"{DATA}/{name}.h5ad", "um_per_px": 1, "spot_um": 100}])

def nan(X):
    X[3, 5] = np.nan
    return X
def neg(X):
    X[3, 5] = -1
    return X

@pytest.fixture(scope="module")
def broken(fresh, tmp_path_factory):
    folder = copy(fresh, tmp_path_factory.mktemp("broken") / "repo")
    add_st(folder, "elsewhere", counts(folder).rename(index=lambda spot: "9" + spot).to_csv(sep="\t"))
    add_st(folder, "outside", image_scale="10")
    add_st(folder, "few", counts(folder)[:6].to_csv(sep="\t"))
    t = counts(folder).astype(float)
    t.iloc[3, 5] = np.nan
    add_st(folder, "gap", t.to_csv(sep="\t"))
    t = counts(folder).astype(float)
    t.iloc[3, 5] = -1
    add_st(folder, "negst", t.to_csv(sep="\t"))
    add_st(folder, "words", words="tumour bed")
    add_st(folder, "othergenes", counts(folder).add_prefix("ENSG").to_csv(sep="\t"))
    add_st(folder, "healthy", words="connective tissue")
    add_st(folder, "cut")
    p = folder / DATA / "ST-imgs" / "cut.jpg"
    p.write_bytes(p.read_bytes()[:20000])
    add_h5ad(folder, "nan", nan)
    add_h5ad(folder, "neg", neg)
    add_h5ad(folder, "logged", np.log1p)
    add_h5ad(folder, "text", np.log1p)
    (folder / DATA / "text.h5ad").write_text("a\tb\n1\t2\n")
    outs = folder / DATA / "visium"
    (outs / "spatial").mkdir(parents=True)
    (outs / "filtered_feature_bc_matrix.h5").write_text("hello\n")
    (outs / "spatial" / "tissue_positions.csv").write_text("hello\n")
    add_rows(folder, [{"section": "textvisium", "platform": "visium", "path": f"{DATA}/visium"}])
    linear = {"method": "linear", "options": {"modalities": ["gene"]}}
    task = {"split": "transfer", "encoders": ["none"], "methods": [linear]}
    write_study(folder, MINI | {"tasks": [
        *MINI["tasks"],
        task | {"name": "genes", "source": 'section == "P1"', "target": 'section == "othergenes"'},
        task | {"name": "class", "source": 'section == "healthy"', "target": 'section == "P1"'},
        ]})
    c = yaml.safe_load((folder/"config/config.yaml").read_text())
    (folder/"w.safetensors").write_text("no weights")
    c["encoders"]["badfile"]={"model": "timm:resnet18", "weights": "w.safetensors"}
    c["encoders"]["badname"]={"model": "timm:resnot18", "weights": "random"}
    (folder/"config/config.yaml").write_text(yaml.safe_dump(c))
    names = ["elsewhere", "outside", "few", "gap", "negst", "cut", "nan", "neg", "logged", "text", "textvisium"]
    t = [f"results/sections/{n}/spots.h5ad" for n in names]
    t += ["results/sections/words/labels.tsv", "results/mini/genes/othergenes/none/labelled/train.h5ad", "results/mini/class/P1/none/labelled/train.h5ad", 
       "results/embeddings/badfile/P1.h5ad", "results/embeddings/badname/P1.h5ad", "results/embeddings/uni/P1.h5ad"]
    done = run(folder, *t, "--cores", "1", "--keep-going", "--config", "study=mini")
    return folder, done

def test_x(broken):
    folder, done = broken
    import pathlib
    pathlib.Path("/tmp/E/out.txt").write_text(done.stdout)
    shutil.rmtree("/tmp/E/broken", ignore_errors=True)
    shutil.copytree(folder, "/tmp/E/broken")
    assert done.returncode
