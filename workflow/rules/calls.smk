# Scores -> a call per spot, by a threshold that looks at the scores alone.


# many runs in one job: a threshold takes a moment, starting a job takes seconds
for name, runs in tables.batches(RUNS).items():

    rule:
        name:
            name
        input:
            scores=tables.files("scores.tsv", runs),
        output:
            calls=tables.files("calls.tsv", runs),
            thresholds=tables.files("threshold.json", runs),
        log:
            f"logs/{STUDY.name}/{name}.log",
        benchmark:
            f"benchmarks/{STUDY.name}/{name}.tsv"
        group:
            STUDY_JOB
        conda:
            "../../envs/data.yaml"
        threads: 1
        resources:
            mem_mb=memory(2000),
            runtime=30,
            gpu=0,
        params:
            kinds=[line["threshold"] for line in tables.rows(runs)],
            code=code("call_spots"),
        script:
            "../../scripts/call_spots.py"
