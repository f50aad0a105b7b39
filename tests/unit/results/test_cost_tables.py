"""The table of what the runs of a study cost."""

from pathlib import Path

import numpy as np

from ctrflow import storage
from ctrflow.results import cost_tables


def run(**given):
    names = {"task": "t", "fold": "A", "encoder": "uni", "variant": "v", "method": "m", "seed": 1}
    return names | {"pretrain": {}, "train": {}, "embed": [], "encoder_params": None} | given


def cost(seconds, rss_mb, spots, gpu_mb=None, device="cpu", **more):
    given = {"genes": 30, "threads": 2, "optimised": 0, "seconds": seconds, "rss_mb": rss_mb, "spots": spots}
    return given | {"gpu_mb": gpu_mb, "device": device} | more


def test_table(tmp_path):
    scored = {"params": 100, "kept_numbers": 7}
    runs = [
        run(
            infer=cost(0.25, 3.5, 40, 12.0, "H200", **scored),
            train=cost(9.5, 80.0, 60, 512.5, "H200"),
            pretrain=cost(30.0, 90.0, 60, None),
            embed=[1.5, 2.0],
            encoder_params=303,
        ),
        run(variant="w", encoder="none", infer=cost(0.5, 4.0, 41, params=0, kept_numbers=0)),
    ]
    storage.write_tsv(cost_tables.table(runs), tmp_path / "efficiency.tsv")
    lines = [line.split("\t") for line in (tmp_path / "efficiency.tsv").read_text().splitlines()]
    assert lines[0] == list(cost_tables.COLUMNS)
    assert dict(zip(lines[0], lines[1], strict=True)) == {
        "task": "t", "fold": "A", "encoder": "uni", "variant": "v", "method": "m", "seed": "1", "params": "100",
        "kept_numbers": "7", "encoder_params": "303", "embed_s": "3.5", "pretrain_s": "30.0", "train_s": "9.5",
        "infer_s": "0.25", "train_rss_mb": "80.0", "infer_rss_mb": "3.5", "gpu_mb": "512.5", "spots": "60",
        "genes": "30", "target_spots": "40", "threads": "2", "device": "cpu, H200",
    }  # fmt: skip
    bare = dict(zip(lines[0], lines[2], strict=True))
    empty = {"encoder_params", "embed_s", "pretrain_s", "train_s", "train_rss_mb", "gpu_mb", "spots"}
    assert {name for name, value in bare.items() if value == ""} == empty
    assert (bare["params"], bare["target_spots"], bare["device"]) == ("0", "41", "cpu")


def test_table_without_runs():
    frame = cost_tables.table([])
    assert (len(frame), list(frame)) == (0, list(cost_tables.COLUMNS))


def test_seconds_of_benchmarks(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.tsv", "b.tsv")]
    Path(paths[0]).write_text("s\th:m:s\tmax_rss\n1.5\t0:00:01\t-\n2.5\t0:00:02\t10\n")
    assert cost_tables.benchmark_seconds(paths[:1]) == [2.5]
    # a sum over some of the sections would be less than it cost
    assert cost_tables.benchmark_seconds(paths) == []
    assert cost_tables.benchmark_seconds([]) == []


def test_costs_are_those_of_the_listed_jobs(tmp_path):
    header = "s\th:m:s\tmax_rss\n"
    (tmp_path / "a.tsv").write_text(header + "3.5\t0:00:03\t250\n")
    (tmp_path / "b.tsv").write_text(header + "1.5\t0:00:01\t-\n")
    listed = [("embed_section", "", "a"), ("train_method", "linear", "b"), ("train_method", "spacrd", "absent")]
    costs = cost_tables.cost_table([{"rule": r, "variant": v, "path": tmp_path / f"{p}.tsv"} for r, v, p in listed])
    assert costs[["rule", "variant", "seconds"]].to_numpy().tolist() == [
        ["embed_section", "", 3.5],
        ["train_method", "linear", 1.5],
    ]
    assert np.isnan(costs["mb"].iloc[1])
