# What a benchmark says: means, ranks, intervals and tests.


rule tabulate_study:
    input:
        metrics="results/{study}/metrics.tsv",
        calls=run_files("calls.tsv"),
        labels=labels_files(STUDY.targets()),
    output:
        sections="results/{study}/tables/sections.tsv",
        methods=report(
            "results/{study}/tables/methods.tsv",
            caption="../report/methods.rst",
            category="Tables",
            labels={"table": "methods"},
        ),
        pairs=report(
            "results/{study}/tables/pairs.tsv",
            caption="../report/pairs.rst",
            category="Tables",
            labels={"table": "pairs"},
        ),
    log:
        "logs/{study}/tabulate_study.log",
    benchmark:
        "benchmarks/{study}/tabulate_study.tsv"
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
        code=code("tabulate_study"),
    script:
        "../../scripts/tabulate_study.py"
