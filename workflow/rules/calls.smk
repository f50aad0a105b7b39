# Scores -> a call per spot, by a threshold that looks at the scores alone.


# all runs of a study in one job: a threshold takes a moment, starting a job takes seconds
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
    group:
        one_job("study")
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
        gpu=0,
    params:
        kinds=[line["threshold"] for line in run_table(STUDY.runs)],
        code=code("call_spots"),
    script:
        "../../scripts/call_spots.py"
