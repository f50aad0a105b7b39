"""Seeds taken together, and the costs of a study."""

import anndata as ad
import numpy as np
import pandas as pd

from ctrflow import results


def spots(names):
    section = ad.AnnData(np.zeros((len(names), 1), dtype=np.float32), obs=pd.DataFrame(index=names))
    section.uns["section"] = {"section": "s"}
    return section


def test_scores_are_the_mean_over_seeds_in_the_order_of_the_section():
    names = [f"p{i}" for i in range(8)]
    first = pd.DataFrame({"section": "s", "spot": names[::-1], "score": np.linspace(0, 0.7, 8)})
    second = pd.DataFrame({"section": "s", "spot": names, "score": np.linspace(1, 0.3, 8)})
    other = pd.DataFrame({"section": "t", "spot": names, "score": 9.0})
    runs = [{"run": "m", "seed": 1}, {"run": "m", "seed": 2}]
    scores, calls, thresholds = results.on_section(runs, [pd.concat([other, first]), second], spots(names))
    assert list(scores.index) == names
    # p0: 0.7 and 1.0; p7: 0.0 and 0.3
    assert scores["m"].iloc[[0, 7]].tolist() == [0.85, 0.15]
    assert (calls["m"] == (scores["m"] >= thresholds["m"].threshold)).all()
    assert set(calls["m"]) == {0, 1}


def test_the_layers_of_a_map_start_with_the_label():
    frame = pd.DataFrame({"m": [0.1, 0.9]})
    titles = [title for title, _, _ in results.layers(frame, frame.round().astype(int), np.array([0, 1]))]
    assert titles == ["label", "m: score", "m: call"]


def test_costs_are_those_of_the_study_and_of_shared_steps(tmp_path):
    header = "s\th:m:s\tmax_rss\n"
    for path, line in {
        "embed_section/enc/a.tsv": "3.5\t0:00:03\t250\n",
        "mine/train_method/t/f/enc/linear/seed1.tsv": "1.5\t0:00:01\t-\n",
        "other/train_method/t/f/enc/linear/seed1.tsv": "99\t0:01:39\t1\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(header + line)
    costs = results.cost_table(tmp_path, "mine")
    assert costs[["rule", "variant", "seconds"]].to_numpy().tolist() == [
        ["embed_section", "", 3.5],
        ["train_method", "linear", 1.5],
    ]
    assert np.isnan(costs["mb"].iloc[1])
