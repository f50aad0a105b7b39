# Raw files. Those of the demo cohort are simulated, in the vendors' own layouts.


rule simulate_cohort:
    output:
        demo_files(),
    log:
        "logs/simulate_cohort.log",
    benchmark:
        "benchmarks/simulate_cohort.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 4
    resources:
        mem_mb=memory(4000),
        runtime=10,
        gpu=0,
    params:
        folder=demo_root,
        seed=SETTINGS["demo_seed"],
        code=code("simulate_cohort"),
    script:
        "../../scripts/simulate_cohort.py"
