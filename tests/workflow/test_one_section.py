"""One section given on the command line, as Snakemake's processes see it: the main one and those of its jobs."""

import anndata
import pytest

from runs import copy, good, jobs, run

GIVEN = ("--config", "path=data/mini/ST-cnts/P1.tsv.gz", "image=data/mini/ST-imgs/P1.jpg", "section=12_03")
TEXTS = ("patient=007", "tissue=Breast", "note=left: breast, O'Neil")


@pytest.fixture(scope="module")
def folder(fresh, tmp_path_factory):
    return copy(fresh, tmp_path_factory.mktemp("one_section") / "repo")


def test_its_map_report_and_exports_are_planned_under_its_name(folder):
    output = good(folder, "-n", "--verbose", "map", *GIVEN, "tissue=breast")
    counts = jobs(output)
    assert (counts["map"], counts["report_study"], counts["export_section"]) == (1, 1, 1)
    for name in ("report.html", "figures/12_03.png", "export/12_03/12_03.h5ad", "export/summary.tsv"):
        assert f"results/12_03/{name}" in output


def test_a_job_reads_the_row_that_was_given(folder):
    spots = "results/sections/12_03/spots.h5ad"
    good(folder, spots, "--cores", "1", *GIVEN, *TEXTS)
    about = anndata.read_h5ad(folder / spots).uns["section"]
    assert (about["section"], about["patient"], about["tissue"]) == ("12_03", "007", "Breast")
    assert "Nothing to be done" in good(folder, spots, "-n", *GIVEN, *TEXTS)


def test_map_without_a_path_tells_the_command(folder):
    done = run(folder, "-n", "map")
    assert done.returncode == 1
    assert done.stdout.count("map needs the path of a section") == 1
    assert "snakemake --cores all map --config path=" in done.stdout
    assert "Traceback" not in done.stdout
