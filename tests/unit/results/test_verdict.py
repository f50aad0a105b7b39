"""The verdict on a section, its words, and the calls that follow from it."""

import json

import numpy as np
import pytest

from ctrflow.results import calls, verdict
from ctrflow.results.verdict import FOUND, NONE, OPEN, Facts, Gate

GATE = Gate(1.0, 0.0, (0.5, 5.0), (-4.0, -0.5), (24, 15), 0.2, 5)
MIXTURE = np.array([1, 1, 1, 0])
LIKELY = np.array([0.9, 0.4, 0.2, 0.9])


@pytest.mark.parametrize(
    ("facts", "said", "called"),
    [
        (Facts(2.0, GATE), FOUND, [1, 1, 0, 0]),  # a low probability is not called
        (Facts(-2.0, GATE), NONE, [0, 0, 0, 0]),
        (Facts(-0.1, GATE), OPEN, [1, 0, 0, 0]),  # a chance of 0.475
        (Facts(0.0, GATE), FOUND, [1, 1, 0, 0]),
        (Facts(2.0, GATE, unlike=("x",)), OPEN, [1, 1, 1, 0]),  # where is still of use
        (Facts(-2.0, GATE, unlike=("x",)), OPEN, [1, 1, 1, 0]),
        (Facts(2.0, GATE, elsewhere=("x",)), FOUND, [1, 1, 0, 0]),
        (Facts(-1.0, GATE, elsewhere=("x",)), OPEN, [1, 1, 0, 0]),  # a chance of 0.27
        (Facts(-2.0, GATE, elsewhere=("x",)), NONE, [0, 0, 0, 0]),  # of 0.12
        (Facts(2.0, None), OPEN, [1, 1, 0, 0]),
        (Facts(), "", [1, 1, 1, 0]),
    ],
)
def test_verdict_and_calls(facts, said, called):
    assert facts.verdict == said
    assert list(verdict.call(MIXTURE, LIKELY, facts)) == called


def test_without_a_probability_the_threshold_calls_where_a_tumour_was_found():
    assert list(verdict.call(MIXTURE, None, Facts(2.0, GATE))) == [1, 1, 1, 0]
    assert list(verdict.call(MIXTURE, None, Facts(-2.0, GATE))) == [0, 0, 0, 0]


def test_facts_survive_a_file():
    for facts in (Facts(), Facts(2.0, GATE, ("a",), ("b",), ("c",), 7.5), Facts(1.0)):
        assert Facts.from_dict(json.loads(json.dumps(facts.as_dict()))) == facts


def test_evidence_in_words():
    said = verdict.judge(Facts(2.0, GATE, (), ("it is visium, the model learned from st",), (), 7.5), MIXTURE, LIKELY, 3)
    assert said.verdict == FOUND
    text = " ".join(said.evidence)
    assert "(upper 2 %) is 2.0" in text
    assert "with tumour had 0.5 to 5.0 (24), those without -4.0 to -0.5 (15): a chance of 88%" in text
    assert "3 of 4 spots are called, the largest connected piece has 3" in text
    assert "50% of the spots have a probability of 0.5 or more; it is 0.60 on average" in text
    assert "by 7.5 sd of a random order of genes: that says nothing for or against a tumour" in text
    assert said.outside == ("it is visium, the model learned from st",)


def test_an_unlike_section_gets_no_word_on_probability():
    said = verdict.judge(Facts(2.0, GATE, ("its genes differ",)), MIXTURE, LIKELY, 3)
    assert not any("probability" in text for text in said.evidence)


def test_a_method_without_labels_says_nothing():
    assert verdict.judge(Facts(), MIXTURE, None, 3) == verdict.Verdict()


def test_statement_of_a_map():
    found, none = verdict.Verdict(FOUND, (), ("it is visium",)), verdict.Verdict(NONE)
    assert verdict.statement({"a": found}) == "Tumour found. Outside of what the model knows: it is visium."
    assert verdict.statement({"a": found, "b": none, "c": verdict.Verdict()}).startswith(
        "a: tumour found. b: no tumour found."
    )
    assert verdict.statement({"a": verdict.Verdict()}) == ""


def test_the_largest_piece_counts_direct_neighbours_only():
    across, down = np.meshgrid(np.arange(4), np.arange(4))
    places = np.column_stack([across.ravel(), down.ravel()]) * 10.0
    called = np.zeros((4, 4), dtype=int)
    called[0, 0] = called[1, 1] = 1  # corners do not touch
    called[3, 1:4] = 1
    assert verdict.largest_piece(places, called.ravel()) == 3
    assert verdict.largest_piece(places, np.zeros(16)) == 0


def test_calls_of_a_score_table():
    import anndata
    import pandas as pd

    spots = [f"s{i}" for i in range(40)]
    scores = np.r_[np.linspace(0.05, 0.1, 20), np.linspace(0.9, 0.95, 20)]
    frame = pd.DataFrame({"section": "S", "spot": spots, "score": scores, "probability": scores})
    across, down = np.meshgrid(np.arange(8), np.arange(5))
    section = anndata.AnnData(
        obs=pd.DataFrame(index=spots), obsm={"spatial": np.column_stack([across.ravel(), down.ravel()]) * 10.0}
    )
    table, fits, found = calls.call_sections(frame, {"S": Facts(-2.0, GATE)}, {"S": section})
    assert list(table["call_mixture"]) == [0] * 20 + [1] * 20
    assert table["call"].sum() == 0
    assert 0.1 < fits["S"].threshold < 0.9
    assert found["S"].verdict == NONE
    table, _, found = calls.call_sections(frame.assign(probability=np.nan), {"S": Facts()}, {"S": section})
    assert list(table["call"]) == list(table["call_mixture"])
    assert found["S"] == verdict.Verdict()
