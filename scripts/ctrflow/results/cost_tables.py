"""Size, time and memory of the runs of a study (METHODS.md section 5; Table S2 of SpaCRD)."""

COLUMNS = {
    "task": str, "fold": str, "encoder": str, "variant": str, "method": str, "seed": int, "params": int,
    "kept_numbers": int, "encoder_params": int, "embed_s": float, "pretrain_s": float, "train_s": float,
    "infer_s": float, "train_rss_mb": float, "infer_rss_mb": float, "gpu_mb": float, "spots": int, "genes": int,
    "target_spots": int, "threads": int, "device": str,
}  # fmt: skip


def table(runs: list[dict]):
    """One row per run, with the columns `COLUMNS`; values that do not apply are empty.

    Parameters
    ----------
    runs : task, fold, encoder, variant, method, seed; `infer`, `train` and `pretrain`, the costs of scoring,
        training and pretraining shared weights (`costs.measured`, `costs.setting`, `costs.sizes`), empty without such a
        step; `encoder_params`, of the frozen encoder (None without one); `embed`, the seconds of the embedding jobs of
        the target sections

    Returns
    -------
    frame. `embed_s` is the wall time of the encoder's jobs on the target sections, including reading and writing; other
    runs share it, as they share `pretrain_s`. `gpu_mb` is the largest of all three steps.
    """
    import pandas as pd

    frame = pd.DataFrame([_row(run) for run in runs], columns=list(COLUMNS))
    return frame.astype({name: {int: "Int64", float: float, str: object}[kind] for name, kind in COLUMNS.items()})


def _row(run: dict) -> dict:
    infer, train, pretrain = run["infer"], run["train"], run["pretrain"]
    steps = [cost for cost in (pretrain, train, infer) if cost]
    return {key: run[key] for key in ("task", "fold", "encoder", "variant", "method", "seed")} | {
        "params": infer["params"],
        "kept_numbers": infer["kept_numbers"],
        "encoder_params": run["encoder_params"],
        "embed_s": sum(run["embed"]) if run["embed"] else None,
        "pretrain_s": pretrain.get("seconds"),
        "train_s": train.get("seconds"),
        "infer_s": infer["seconds"],
        "train_rss_mb": train.get("rss_mb"),
        "infer_rss_mb": infer["rss_mb"],
        "gpu_mb": max((cost["gpu_mb"] for cost in steps if cost["gpu_mb"] is not None), default=None),
        "spots": train.get("spots"),
        "genes": infer["genes"],
        "target_spots": infer["spots"],
        "threads": infer["threads"],
        # with device `auto`, jobs of one run can differ in their device
        "device": ", ".join(dict.fromkeys(cost["device"] for cost in steps)),
    }


def benchmark_seconds(paths: list[str]) -> list[float]:
    """Wall time in each of Snakemake's benchmark files (last repeat); [] unless all exist."""
    from pathlib import Path

    import pandas as pd

    if not all(Path(path).is_file() for path in paths):
        return []
    return [float(pd.read_csv(path, sep="\t", na_values="-")["s"].iloc[-1]) for path in paths]


def cost_table(benchmarks: list[dict]):
    """Seconds and peak memory of the finished jobs: rule, variant, seconds, mb.

    `benchmarks` lists rule, variant and the path of Snakemake's benchmark file; missing files are skipped.
    """
    from pathlib import Path

    import pandas as pd

    rows = []
    for line in benchmarks:
        if not Path(line["path"]).is_file():
            continue
        last = pd.read_csv(line["path"], sep="\t", na_values="-").iloc[-1]
        rows.append({"rule": line["rule"], "variant": line["variant"], "seconds": last["s"], "mb": last["max_rss"]})
    return pd.DataFrame(rows, columns=["rule", "variant", "seconds", "mb"])
