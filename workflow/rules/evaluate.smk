# Calls and truth meet here, and nowhere before.


rule evaluate_study:
    input:
        calls=run_files("calls.tsv"),
        labels=labels_files(STUDY.targets()),
    output:
        metrics=report(
            "results/{study}/metrics.tsv",
            caption="../report/metrics.rst",
            category="Tables",
            labels={"table": "metrics"},
        ),
    log:
        "logs/{study}/evaluate_study.log",
    benchmark:
        "benchmarks/{study}/evaluate_study.tsv"
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
        runs=run_table(STUDY.runs),
        patients=target_patients(),
        code=code("evaluate_study"),
    script:
        "../../scripts/evaluate_study.py"
