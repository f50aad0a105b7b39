# What a benchmark says: means, ranks, intervals and tests.


rule tabulate_study:
    input:
        metrics=METRICS,
        calls=tables.files("calls.tsv", RUNS),
        labels=PLAN.labels(TARGETS),
    output:
        sections=f"{TABLES}/sections.tsv",
        methods=report(
            f"{TABLES}/methods.tsv",
            caption="../report/methods.rst",
            category="Tables",
            labels={"table": "methods"},
        ),
        pairs=report(
            f"{TABLES}/pairs.tsv",
            caption="../report/pairs.rst",
            category="Tables",
            labels={"table": "pairs"},
        ),
    log:
        "logs/{study}/tabulate_study.log",
    benchmark:
        "benchmarks/{study}/tabulate_study.tsv"
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
        code=code("tabulate_study"),
    script:
        "../../scripts/tabulate_study.py"
