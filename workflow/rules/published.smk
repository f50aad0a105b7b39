# The study beside the papers: only where its sections, methods and settings are theirs.


rule compare_published:
    input:
        metrics="results/{study}/metrics.tsv",
        calls=run_files("calls.tsv"),
        labels=labels_files(STUDY.targets()),
        checks=check_files(),
        costs="results/{study}/tables/efficiency.tsv",
        published=PUBLISHED,
        names=PUBLISHED_NAMES,
    output:
        published=report(
            "results/{study}/tables/published.tsv",
            caption="../report/published.rst",
            category="Tables",
            labels={"table": "published"},
        ),
        papers=directory("results/{study}/tables/papers"),
    log:
        "logs/{study}/compare_published.log",
    benchmark:
        "benchmarks/{study}/compare_published.tsv"
    group:
        one_job("study")
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=20,
        gpu=0,
    params:
        runs=run_table(STUDY.runs),
        plan=compared_plan(),
        code=code("compare_published"),
    script:
        "../../scripts/compare_published.py"
