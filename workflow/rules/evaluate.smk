# Calls and truth meet here, and nowhere before.


rule evaluate_study:
    input:
        calls=tables.files("calls.tsv", RUNS),
        labels=PLAN.labels(TARGETS),
    output:
        metrics=report(
            METRICS,
            caption="../report/metrics.rst",
            category="Tables",
            labels={"table": "metrics"},
        ),
    log:
        "logs/{study}/evaluate_study.log",
    benchmark:
        "benchmarks/{study}/evaluate_study.tsv"
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
        runs=tables.rows(RUNS),
        patients=tables.patients(PLAN),
        code=code("evaluate_study"),
    script:
        "../../scripts/evaluate_study.py"
