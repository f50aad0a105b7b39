# The figures of the papers, and of what lies around the tumours.


rule draw_study:
    input:
        metrics=METRICS,
        calls=tables.files("calls.tsv", RUNS),
        evidence=tables.files("evidence.json", RUNS),
        spots=paths.of_sections("spots.h5ad", UNCROPPED),
        images=tables.images(PLAN),
        labels=PLAN.labels(UNCROPPED),
        words=shipped.found(load.SEVERITY_WORDS),
        layer_genes=f"{TABLES}/layer_genes.tsv",
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
        widths_um=PLAN.content["layers_um"],
        code=code("draw_study"),
    script:
        "../../scripts/draw_study.py"
