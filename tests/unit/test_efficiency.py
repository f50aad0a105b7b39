"""The table of what the runs of a study cost."""

from pathlib import Path

from ctrflow import efficiency, storage


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
    storage.write_tsv(efficiency.table(runs), tmp_path / "efficiency.tsv")
    lines = [line.split("\t") for line in (tmp_path / "efficiency.tsv").read_text().splitlines()]
    assert lines[0] == list(efficiency.COLUMNS)
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
    frame = efficiency.table([])
    assert (len(frame), list(frame)) == (0, list(efficiency.COLUMNS))


def test_seconds_of_benchmarks(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.tsv", "b.tsv")]
    Path(paths[0]).write_text("s\th:m:s\tmax_rss\n1.5\t0:00:01\t-\n2.5\t0:00:02\t10\n")
    assert efficiency.benchmark_seconds(paths[:1]) == [2.5]
    # a sum over some of the sections would be less than it cost
    assert efficiency.benchmark_seconds(paths) == []
    assert efficiency.benchmark_seconds([]) == []
