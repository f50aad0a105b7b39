# The map of a section, and files that other viewers open: a format is a file in scripts/ctrflow/export.


rule export_section:
    input:
        spots=f"{SECTION}/spots.h5ad",
        image=image_of,
        labels=lambda w: PLAN.labels([w.section]),
        calls=lambda w: tables.of_runs_on(PLAN, w.section, "calls.tsv"),
        evidence=lambda w: tables.of_runs_on(PLAN, w.section, "evidence.json"),
        draw_here=lambda w: list(tables.draw_here(PLAN, w.section).values()),
        drawn=lambda w: paths.of_sections(
            "drawn.tsv", [w.section] if tables.draw_here(PLAN, w.section) else []
        ),
    output:
        **exported(),
        figure=report(
            MAP,
            caption="../report/map.rst",
            category="Maps",
            labels={"section": "{section}"},
        ),
    log:
        "logs/{study}/export_section/{section}.log",
    benchmark:
        "benchmarks/{study}/export_section/{section}.tsv"
    wildcard_constraints:
        section=one_of({*UNCROPPED} - {*OF_CELLS}),
    group:
        EXPORT_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=30,
        gpu=0,
    params:
        runs=lambda w: tables.on_section(PLAN, w.section),
        cautions=lambda w: STUDY.cautions.get(w.section, ()),
        taught=lambda w: list(tables.draw_here(PLAN, w.section)),
        widths_um=PLAN.content["layers_um"],
        code=code("export_section", *tables.export_modules()),
    script:
        "../../scripts/export_section.py"


# the same with files of cells: Xenium Explorer shows cells, the other viewers spots
use rule export_section as export_cells with:
    input:
        spots=f"{SECTION}/spots.h5ad",
        cells=f"{SECTION}/cells.h5ad",
        image=image_of,
        labels=lambda w: PLAN.labels([w.section]),
        calls=lambda w: tables.of_runs_on(PLAN, w.section, "calls.tsv"),
        evidence=lambda w: tables.of_runs_on(PLAN, w.section, "evidence.json"),
        draw_here=lambda w: list(tables.draw_here(PLAN, w.section).values()),
        drawn=lambda w: paths.of_sections(
            "drawn.tsv", [w.section] if tables.draw_here(PLAN, w.section) else []
        ),
    output:
        **exported(),
        **exported("cells"),
        figure=report(
            MAP,
            caption="../report/map.rst",
            category="Maps",
            labels={"section": "{section}"},
        ),
    log:
        "logs/{study}/export_cells/{section}.log",
    benchmark:
        "benchmarks/{study}/export_cells/{section}.tsv"
    wildcard_constraints:
        section=one_of(OF_CELLS),
    params:
        runs=lambda w: tables.on_section(PLAN, w.section),
        cautions=lambda w: STUDY.cautions.get(w.section, ()),
        taught=lambda w: list(tables.draw_here(PLAN, w.section)),
        widths_um=PLAN.content["layers_um"],
        code=code(
            "export_section", *tables.export_modules(), *tables.export_modules("cells")
        ),


# the map of a crop; no other viewer needs its files
use rule export_section as draw_crop with:
    output:
        figure=report(
            MAP,
            caption="../report/map.rst",
            category="Maps",
            labels={"section": "{section}"},
        ),
    log:
        "logs/{study}/draw_crop/{section}.log",
    benchmark:
        "benchmarks/{study}/draw_crop/{section}.tsv"
    wildcard_constraints:
        section=one_of(CROPS),


# one line a section and run, for a spreadsheet
rule summarise_export:
    input:
        summaries=collect(
            tables.export_patterns()["summary"],
            section=UNCROPPED,
            allow_missing=True,
        ),
    output:
        summary=report(
            f"{EXPORT}/summary.tsv",
            caption="../report/summary.rst",
            category="Tables",
            labels={"table": "sections"},
        ),
    log:
        "logs/{study}/summarise_export.log",
    benchmark:
        "benchmarks/{study}/summarise_export.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=10,
        gpu=0,
    script:
        "../../scripts/summarise_export.py"
