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


def test_costs_are_those_of_the_listed_jobs(tmp_path):
    header = "s\th:m:s\tmax_rss\n"
    (tmp_path / "a.tsv").write_text(header + "3.5\t0:00:03\t250\n")
    (tmp_path / "b.tsv").write_text(header + "1.5\t0:00:01\t-\n")
    listed = [("embed_section", "", "a"), ("train_method", "linear", "b"), ("train_method", "spacrd", "absent")]
    costs = results.cost_table([{"rule": r, "variant": v, "path": tmp_path / f"{p}.tsv"} for r, v, p in listed])
    assert costs[["rule", "variant", "seconds"]].to_numpy().tolist() == [
        ["embed_section", "", 3.5],
        ["train_method", "linear", 1.5],
    ]
    assert np.isnan(costs["mb"].iloc[1])
