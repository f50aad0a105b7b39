# The papers' figures, made again from what the study found.


rule draw_study:
    input:
        metrics="results/{study}/metrics.tsv",
        calls=run_files("calls.tsv"),
        spots=spots_files(STUDY.targets()),
        images=target_images(),
        labels=labels_files(STUDY.targets()),
        words=SEVERITY_WORDS,
        markers=marker_lists(),
    output:
        figures=report(
            directory("results/{study}/figures/study"),
            patterns=["{name}.png"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{name}"},
        ),
    log:
        "logs/{study}/draw_study.log",
    benchmark:
        "benchmarks/{study}/draw_study.tsv"
    group:
        one_job("study")
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
        gpu=0,
    params:
        targets=target_table(),
        patients=target_patients(),
        code=code("draw_study"),
    script:
        "../../scripts/draw_study.py"
