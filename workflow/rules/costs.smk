# What the runs of a study cost. Nothing that is scored, called or evaluated reads it.


rule tabulate_costs:
    input:
        costs=tables.once(tables.costs(PLAN), "pretrain", "train", "infer"),
        embeddings=tables.once(tables.costs(PLAN), "embedding"),
    output:
        efficiency=report(
            f"{TABLES}/efficiency.tsv",
            caption="../report/efficiency.rst",
            category="Tables",
            labels={"table": "efficiency"},
        ),
    log:
        "logs/{study}/tabulate_costs.log",
    benchmark:
        "benchmarks/{study}/tabulate_costs.tsv"
    group:
        STUDY_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=10,
        gpu=0,
    params:
        runs=tables.costs(PLAN),
        code=code("tabulate_costs"),
    script:
        "../../scripts/tabulate_costs.py"
