# The study beside the papers: only where its sections, methods and settings are theirs.


rule compare_published:
    input:
        metrics=METRICS,
        calls=tables.files("calls.tsv", RUNS),
        labels=PLAN.labels(TARGETS),
        checks=paths.of_sections("check.json", PLAN.used),
        costs=f"{TABLES}/efficiency.tsv",
        published=load.PUBLISHED,
        names=load.PUBLISHED_NAMES,
    output:
        published=report(
            f"{TABLES}/published.tsv",
            caption="../report/published.rst",
            category="Tables",
            labels={"table": "published"},
        ),
        papers=directory(f"{TABLES}/papers"),
    log:
        "logs/{study}/compare_published.log",
    benchmark:
        "benchmarks/{study}/compare_published.tsv"
    group:
        STUDY_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=20,
        gpu=0,
    params:
        runs=tables.rows(RUNS),
        plan=tables.compared(PLAN),
        code=code("compare_published"),
    script:
        "../../scripts/compare_published.py"
