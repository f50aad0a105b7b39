"""`snakemake doctor`: what it reports of a healthy study, and of one that would fail in three places."""

import anndata
import pandas as pd

from ctrflow import readers
from runs import MINI, add_rows, copy, good, run, st_row, write_study

DOCTOR = ("doctor", "--cores", "1", "--config", "study=mini")


def page(output: str) -> list[str]:
    """The doctor's lines, the last thing said."""
    lines = output.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(("ok ", "warning ", "problem ")))
    return lines[start:]


def test_the_study_is_looked_at_anew_each_time(fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    # healthy, with a section that no encoder looks at, which needs no image
    add_rows(folder, [st_row("P1", cohort="blind") | {"section": "P9", "patient": "P9", "image": ""}])
    blind = {"name": "blind", "split": "transfer", "source": 'section == "P2"', "target": 'section == "P9"'}
    write_study(folder, MINI | {"tasks": [*MINI["tasks"], blind | {"encoders": ["none"], "methods": ["random"]}]})
    found = page(good(folder, *DOCTOR))
    assert any("0 problems" in line for line in found)
    for section in ("P1", "P2", "P3"):
        assert any(section in line and "the spots fit the image" in line for line in found)
    assert any(line.startswith("ok ") and "P9" in line for line in found)
    # broken in three places, all reported at once
    (folder / "data/mini/ST-imgs/P2.jpg").unlink()
    selection = folder / "data/mini/ST-spotfiles/P3_selection.tsv"
    selection.write_text(selection.read_text().replace("pixel_x", "px"))
    config = folder / "config/config.yaml"
    text = config.read_text()
    config.write_text(text.replace("model: uni\n    weights: hub", "model: uni\n    weights: models/uni.safetensors"))
    write_study(folder, MINI | {"encoders": ["hed_texture", "uni"]})
    done = run(folder, *DOCTOR)
    assert done.returncode != 0
    problems = [line for line in page(done.stdout) if line.startswith("problem ")]
    for words in ("P2", "P3", "models/uni.safetensors"):
        assert any(words in line for line in problems), problems
    assert "Traceback" not in done.stdout
    assert "3 problems" in done.stdout
    assert not (folder / "results").exists()


def read_p1(folder):
    return readers.read_section({"section": "P1", "platform": "st", "path": f"{folder}/{st_row('P1')['path']}"})


def add_named(folder, section: str, names: list[str]) -> None:
    """P1 once more, as an .h5ad whose genes have other names."""
    spots = read_p1(folder)
    table = anndata.AnnData(spots.X, obs=pd.DataFrame(index=spots.obs_names), var=pd.DataFrame(index=names))
    table.obsm["spatial"] = spots.obsm["spatial"]
    table.write_h5ad(folder / f"data/{section}.h5ad")
    own = {"section": section, "patient": section, "platform": "h5ad", "path": f"data/{section}.h5ad", "labels": ""}
    add_rows(folder, [st_row("P1", cohort="named") | own | {"um_per_px": "1.1", "spot_um": "100"}])


def test_names_of_genes_are_compared_over_the_study(fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    names = list(read_p1(folder).var_names)
    add_named(folder, "ids", [f"ENSG{number:011d}" for number in range(len(names))])
    add_named(folder, "mouse", [name.title() for name in names])
    tasks = [{"name": "map", "split": "transfer", "source": 'cohort == "mini"', "target": 'cohort == "named"'}]
    write_study(folder, MINI | {"methods": ["linear"], "tasks": tasks})
    done = run(folder, *DOCTOR)
    assert done.returncode != 0
    shown = "\n".join(" ".join(line.split()) for line in page(done.stdout))
    for words in (
        "human gene symbols EPCAM 200, the same P1, P2, P3",
        "human Ensembl ids ENSG00000000000 200 ids",
        "mouse gene symbols Epcam 200 mouse",
        "problem study map the run would stop: P1, P2, P3, ids have no gene in common",
        "P1 and ids share 0 of 200 genes (0%); gene symbols in P1",
        "P1 and mouse share 3 of 200 genes (2%); names differ in upper and lower case",
        "2 problems, ",
    ):
        assert words in shown, shown
