"""Configuration and study files."""

from pathlib import Path

import pandas as pd
import pytest

from ctrflow import methods, schema
from ctrflow.folds import fold
from ctrflow.plan import load, study

SCHEMAS = Path(__file__).parents[2] / "workflow" / "schemas"
CONFIG, STUDY = schema.read_yaml(SCHEMAS / "config.schema.yaml"), load.study_schema(SCHEMAS)
SHEET = pd.DataFrame(
    {
        "section": ["A1", "B1", "B2", "U1"],
        "patient": ["A", "B", "B", "U"],
        "cohort": ["lab", "lab", "lab", "mine"],
        "platform": ["st"] * 4,
        "tissue": ["breast"] * 4,
        "labels": ["x", "x", "x", ""],
        "image": ["i"] * 4,
        "note": [""] * 4,
    }
)
TASK = {"name": "t", "split": "leave_one_patient_out", "source": 'cohort == "lab"'}
GOOD = {"study": "s", "methods": ["linear"], "tasks": [TASK], "encoders": ["none"]}


def yaml_of(content: bytes):
    """A fault: a study file of these bytes."""

    def fault(folder):
        path = folder / "study.yaml"
        path.write_bytes(content)
        return lambda: schema.read_yaml(path)

    return fault


def study_of(**changed):
    """A fault: a study with these keys."""
    content = GOOD | changed
    return lambda _: (
        lambda: study.expand(
            schema.check(content, STUDY, "study.yaml"), SHEET, {}, [1], "study.yaml", marked=("breast",)
        )
    )


def config_of(**changed):
    """A fault: a configuration with these keys."""
    return lambda _: lambda: schema.check(changed, CONFIG, "config.yaml")


def query_of(query: str):
    """A fault: a task with this source query."""
    return lambda _: lambda: fold.select(SHEET, query, "study.yaml: source")


def option_of(method: str, **options):
    """A fault: a method with these options."""
    return lambda _: lambda: methods.resolve_options(methods.load(method).SPEC, options)


WINDOWS_PATH = b'study: mine\nmodel: "C:\\data\\model.safetensors"\n'
FAULTS = {
    "saved as UTF-16": (yaml_of("study: mine\n".encode("utf-16")), ["study.yaml", "save it as UTF-8"]),
    "saved in Latin-1": (yaml_of("title: Gewebe für München\n".encode("latin-1")), ["study.yaml", "save it as UTF-8"]),
    "empty": (yaml_of(b""), ["study.yaml", "expected `key: value` lines"]),
    "only comments": (yaml_of(b"# study: mine\n"), ["study.yaml", "expected `key: value` lines"]),
    "a list": (yaml_of(b"- study\n- mine\n"), ["study.yaml", "expected `key: value` lines"]),
    "a web page": (yaml_of(b"<!DOCTYPE html><html>404</html>"), ["study.yaml", "expected `key: value` lines"]),
    "no space after a colon": (yaml_of(b"study:mine\n"), ["study.yaml", "expected `key: value` lines"]),
    "a bracket left open": (
        yaml_of(b"study: mine\nseeds: [1, 2\nmethods: [linear]\n"),
        ["study.yaml, row 3", "close brackets"],
    ),
    "a quote left open": (yaml_of(b"study: 'mine\ntasks: []\n"), ["study.yaml, row 3", "quotes"]),
    "a key twice": (
        yaml_of(b"study: mine\nseeds: [1]\ntasks: []\nseeds: [2]\n"),
        ["study.yaml, row 4", "`seeds` is already at row 2", "keep one"],
    ),
    "a key twice, further in": (
        yaml_of(b"tasks:\n  - name: a\n    split: transfer\n    name: b\n"),
        ["study.yaml, row 4", "`name` is already at row 2", "keep one"],
    ),
    "a path of Windows in double quotes": (yaml_of(WINDOWS_PATH), ["study.yaml, row 2", "unknown escape character"]),
    "Python inside": (
        yaml_of(b"title: !!python/object/apply:os.getcwd []\n"),
        ["study.yaml, row 1", "not valid YAML"],
    ),
    "an empty integer": (yaml_of(b"n_genes: !!int ''\n"), ["study.yaml: a value that cannot be read", "quotes"]),
    "a boolean not in English": (
        yaml_of(b"a: !!bool ja\n"),
        ["study.yaml: a value that cannot be read", "quotes"],
    ),
    "half a character": (yaml_of(b'title: "\\ud83d"\n'), ["study.yaml, row 1, column 8", "half a character"]),
    "an invalid date": (yaml_of(b"a: !!timestamp now\n"), ["study.yaml: a value that cannot be read", "quotes"]),
    "an encoder twice": (
        study_of(encoders=["none", "none"]),
        ["study.yaml", "encoders: ['none', 'none'] has non-unique elements"],
    ),
    "one seed, not a list": (study_of(seeds=5), ["study.yaml: 1 problem", "seeds: 5 is not of type 'array'"]),
    "a seed twice": (study_of(seeds=[1, 1]), ["study.yaml", "seeds: [1, 1] has non-unique elements"]),
    "a negative seed": (study_of(seeds=[-1]), ["study.yaml", "seeds.0: -1 is less than the minimum of 0"]),
    "a seed in words": (study_of(seeds=["1e3"]), ["study.yaml", "seeds.0: '1e3' is not of type 'integer'"]),
    "no task": (study_of(tasks=[]), ["study.yaml", "tasks: [] should be non-empty"]),
    "a study that leads out of its folder": (study_of(study="../mine"), ["study.yaml", "study: '../mine' does not"]),
    "a study named like a folder of results": (study_of(study="sections"), ["study.yaml", "study: 'sections'"]),
    "a task that leads out of its folder": (
        study_of(tasks=[TASK | {"name": "a/../../b"}]),
        ["study.yaml", "tasks.0.name: 'a/../../b' does not match"],
    ),
    "a share in per cent": (
        study_of(tasks=[TASK | {"min_gene_share": 50}]),
        ["study.yaml", "tasks.0.min_gene_share: 50 is greater than the maximum of 1"],
    ),
    "a decimal comma": (
        study_of(tasks=[TASK | {"min_gene_share": "0,5"}]),
        ["study.yaml", "tasks.0.min_gene_share: '0,5' is not of type 'number'"],
    ),
    "yes for a name": (study_of(study=True), ["study.yaml", "study: True is not of type 'string'"]),
    "an encoder, not a list": (study_of(encoders="none"), ["study.yaml", "encoders: 'none' is not of type 'array'"]),
    "a task without a split": (
        study_of(tasks=[{"name": "t", "source": 'cohort == "lab"'}]),
        ["study.yaml", "tasks.0.split: missing"],
    ),
    "all sources of one patient": (
        study_of(tasks=[TASK | {"source": 'patient == "B"'}]),
        ["study.yaml: task t", "every source section is of the same patient", "fill the column patient"],
    ),
    "a method in capitals": (study_of(methods=["Linear"]), ["study.yaml", "unknown method `Linear`", "`linear`"]),
    "n_genes with a thousands separator": (
        config_of(study="demo", n_genes="3,000"),
        ["config.yaml", "n_genes: '3,000' is not of type 'integer'"],
    ),
    "n_genes of zero": (config_of(study="demo", n_genes=0), ["config.yaml", "n_genes: 0 is less than the minimum"]),
    "n_genes that is not a number": (config_of(study="demo", n_genes=float("nan")), ["config.yaml", "n_genes: nan"]),
    "a key without its value": (config_of(study="demo", n_genes=None), ["config.yaml", "n_genes: None is not of"]),
    "a query in SQL": (query_of("cohort = 'lab'"), ["study.yaml: source", "not a query", "columns: section"]),
    "a query with curly quotes": (query_of("cohort == “lab”"), ["study.yaml: source", "not a query"]),
    "an empty query": (query_of(""), ["study.yaml: source", "not a query"]),
    "a query with a bracket open": (query_of("section.str.contains('(')"), ["study.yaml: source", "not a query"]),
    "a query by row number": (query_of("0"), ["study.yaml: source", "not a query", "compare columns by"]),
    "a query by row numbers": (query_of("[0, 0, 3]"), ["study.yaml: source", "not a query", "compare columns by"]),
    "a query that writes": (query_of("section.to_csv('x') == 1"), ["study.yaml: source", "not a query", "compare"]),
    "a query that is not a condition": (query_of("section"), ["study.yaml: source", "not a query"]),
    "a query for a cohort in capitals": (query_of('cohort == "LAB"'), ["study.yaml: source", "cohorts: lab, mine"]),
    "a query that calls a function": (
        study_of(tasks=[TASK | {"source": "@np.size(section) > 0"}]),
        ["study.yaml: task t: source", "not a query over the section sheet", "columns: section"],
    ),
    "a query that writes a file": (
        study_of(tasks=[TASK | {"source": "`section`.to_csv('planted') == 1"}]),
        ["study.yaml: task t: source", "not a query over the section sheet", "columns: section"],
    ),
    "a query that looks inside Python": (
        study_of(tasks=[TASK | {"source": 'section.__class__.__name__ == "Series"'}]),
        ["study.yaml: task t: source", "not a query over the section sheet", "compare columns by =="],
    ),
    "an option in text": (option_of("linear", C="1e-4"), ["method linear: option `C`", "written like 0.001"]),
    "an option not a number": (
        option_of("linear", C=float("nan")),
        ["method linear: option `C` is nan", "above"],
    ),
    "an option below its limit": (option_of("linear", C=0), ["method linear: option `C` is 0", "above 0"]),
    "modalities not a list": (
        option_of("linear", modalities="gene"),
        ["method linear: option `modalities` is 'gene'", "give a list"],
    ),
}


def a_number_for_a_key(_):
    return lambda: schema.check(GOOD | {5: "x"}, STUDY, "study.yaml")


FAULTS["a number for a key"] = (a_number_for_a_key, ["study.yaml", "5: unknown key"])


@pytest.mark.parametrize("name", FAULTS)
def test_it_is_reported(name, tmp_path, assert_error):
    fault, words = FAULTS[name]
    assert_error(fault(tmp_path), words)
