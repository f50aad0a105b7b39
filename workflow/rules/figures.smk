# The map of a section, and the figures of the papers.


rule plot_section:
    input:
        spots=f"{SECTION}/spots.h5ad",
        image=image_of,
        labels=lambda w: PLAN.labels([w.section]),
        calls=lambda w: tables.calls_on(PLAN, w.section),
    output:
        figure=report(
            f"{FIGURES}/{{section}}.png",
            caption="../report/map.rst",
            category="Maps",
            labels={"section": "{section}"},
        ),
    log:
        "logs/{study}/plot_section/{section}.log",
    benchmark:
        "benchmarks/{study}/plot_section/{section}.tsv"
    group:
        EXPORT_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=20,
        gpu=0,
    params:
        runs=lambda w: tables.on_section(PLAN, w.section),
        code=code("plot_section"),
    script:
        "../../scripts/plot_section.py"


# the figures of the papers, from the results of the study
rule draw_study:
    input:
        metrics=METRICS,
        calls=tables.files("calls.tsv", RUNS),
        spots=paths.of_sections("spots.h5ad", TARGETS),
        images=tables.images(PLAN),
        labels=PLAN.labels(TARGETS),
        words=load.SEVERITY_WORDS,
        markers=sections.known_marker_lists(PLAN),
    output:
        figures=report(
            directory(f"{FIGURES}/study"),
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
        STUDY_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
        gpu=0,
    params:
        targets=tables.targets(PLAN),
        patients=tables.patients(PLAN),
        code=code("draw_study"),
    script:
        "../../scripts/draw_study.py"
