"""`snakemake doctor`: what it reports of a healthy study, and of one that would fail in three places."""

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
