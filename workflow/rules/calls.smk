# Scores -> a call per spot, by a threshold that looks at the scores alone.


# all runs of a study in one job: each takes a moment, starting a job takes longer
rule call_spots:
    input:
        scores=run_files("scores.tsv"),
    output:
        calls=run_files("calls.tsv"),
        thresholds=run_files("threshold.json"),
    log:
        f"logs/{STUDY.name}/call_spots.log",
    benchmark:
        f"benchmarks/{STUDY.name}/call_spots.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        gpu=0,
    params:
        code=code("threshold"),
    script:
        "../../scripts/call_spots.py"
