"""Tasks with the split `within`: what is drawn in a target teaches it, alone or on top of an earlier task's model."""

import pytest

from ctrflow.errors import InputError
from ctrflow.plan import tables
from ctrflow.plan.sheet import COLUMNS


def line(section, **cells):
    """A row of the sheet; each section is a patient of its own."""
    named = {"section": section, "patient": section, "cohort": "lab", "tissue": "breast", "platform": "st"}
    return dict.fromkeys(COLUMNS, "") | named | {"path": f"data/{section}.tsv", "image": f"data/{section}.jpg"} | cells


DRAWN = [line(name, labels=f"data/{name}.csv", drawn=f"data/{name}.geojson" if name == "C" else "") for name in "ABC"]
ELSEWHERE = {"name": "elsewhere", "split": "transfer", "source": 'section in ["A", "B"]', "target": 'section == "C"'}
WITHIN = {"name": "mine", "split": "within", "target": 'section == "C"'}
OF_C = "results/s/mine/C/uni"


def runs_of(plan, task="mine"):
    return {run.spec.name: run for run in plan.study.runs if run.task["name"] == task}


def test_a_method_learns_from_the_section_that_it_scores(plan_of):
    plan = plan_of([WITHIN], ["strokes", "linear", "random", "oracle"], sheet=DRAWN)
    runs = runs_of(plan)
    for name in ("strokes", "linear"):
        run = runs[name]
        assert run.table("train") == run.table("target") == f"{OF_C}/drawn/train.h5ad"
        assert (run.drawn, run.prior_scores) == ("results/sections/C/drawn.tsv", [])
        assert (run.learned, run.fold.labelled(run.view), run.sections) == (("C",), (), ("C", "C"))
        assert (run.reference, run.judges, run.level, run.counts) == ("drawn", False, [], [])
        assert run.model == f"{OF_C}/{name}/seed1/model.safetensors"
    # controls too are judged where nothing is drawn
    assert runs["random"].table("target") == f"{OF_C}/alone/target.h5ad"
    assert runs["random"].drawn == "results/sections/C/drawn.tsv"
    assert runs["random"].reference == "drawn"
    assert plan.study.whole == {}


def test_it_builds_on_every_seed_of_an_earlier_model(plan_of):
    earlier = ELSEWHERE | {"methods": ["random", "spacrd"]}
    plan = plan_of(
        [earlier, WITHIN | {"prior": "elsewhere", "methods": ["strokes", "prior", "total_counts"]}], sheet=DRAWN
    )
    runs = runs_of(plan)
    scores = [f"results/s/elsewhere/C/uni/spacrd/seed{seed}/scores.tsv" for seed in (1, 2)]
    assert runs["strokes"].prior_scores == runs["prior"].prior_scores == scores
    assert runs["total_counts"].prior_scores == []
    # with that model's encoder, unless the task has its own
    assert runs["strokes"].encoder == "uni"
    alone = plan_of(
        [earlier, WITHIN | {"prior": "elsewhere", "methods": ["strokes"], "encoders": ["none"]}], sheet=DRAWN
    )
    assert runs_of(alone)["strokes"].encoder == "none"


def test_each_seed_is_a_drawing_of_its_own_where_a_share_of_labels_is_drawn(plan_of):
    task = WITHIN | {"target": 'section in ["A", "B"]', "draw": 0.1}
    plan = plan_of([task], ["strokes", "oracle"], sheet=DRAWN, seeds=[3, 4, 5])
    found = [run for run in plan.study.runs if run.spec.name == "strokes" and run.fold.name == "A"]
    assert {run.drawn for run in found} == {"results/s/mine/A/drawn.tsv"}
    assert tables.seeds_of(plan, "mine") == [3, 4, 5]
    assert len(plan.study.runs) == 2 * 2 * 3


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([WITHIN | {"target": 'section == "A"'}], "sections with an empty column drawn: A; give what is drawn in each"),
        ([{"name": "mine", "split": "within"}], "split `within` needs a `target` query"),
        ([WITHIN | {"crop": "tumour_free"}], "`crop` is of no use with the split `within`"),
        ([WITHIN | {"prior": "nowhere"}], "prior: no earlier task `nowhere` whose methods score C"),
        ([WITHIN | {"prior": "elsewhere"}, ELSEWHERE], "prior: no earlier task `elsewhere` whose methods score C"),
        (
            [ELSEWHERE | {"methods": ["linear", "spacrd"]}, WITHIN | {"prior": "elsewhere"}],
            "the task `elsewhere` has several models (linear, spacrd)",
        ),
        ([WITHIN, WITHIN | {"name": "again", "prior": "mine"}], "has the split `within` itself"),
    ],
)
def test_what_cannot_be_is_told(plan_of, tasks, message):
    with pytest.raises(InputError) as caught:
        plan_of(tasks, ["strokes"], sheet=DRAWN)
    assert message in str(caught.value)


def test_methods_that_cannot_are_left_out_with_the_reason(plan_of):
    plan = plan_of([ELSEWHERE, WITHIN], ["strokes", "spacrd", "prior", "linear"], sheet=DRAWN)
    reasons = {(row["task"], row["variant"]): row["reason"] for row in plan.study.not_applicable}
    assert reasons["mine", "spacrd"].startswith(
        "cannot learn from what is drawn in the target itself; use boosting, linear"
    )
    assert reasons["elsewhere", "strokes"] == "learns from what is drawn in the target itself (split `within`)"
    assert reasons["mine", "prior"] == "needs a model that the task builds on (split `within`, key `prior`)"


def test_without_an_image_the_genes_are_enough(plan_of):
    sheet = [line("C", image="none", drawn="d.tsv")]
    plan = plan_of([WITHIN | {"encoders": ["none"]}], ["strokes", "propagation"], sheet=sheet)
    assert len(plan.study.runs) == 2
    with pytest.raises(InputError, match="encoder `uni` reads the image, but these sections have none: C"):
        plan_of([WITHIN], ["strokes"], sheet=sheet)
