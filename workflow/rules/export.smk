# Files that other viewers open, and the map of a section.


rule export_section:
    input:
        spots="results/sections/{section}/spots.h5ad",
        image=image_file,
        calls=section_calls,
    output:
        h5ad="results/{study}/export/{section}/{section}.h5ad",
        loupe="results/{study}/export/{section}/{section}.loupe.csv",
        summary="results/{study}/export/{section}/{section}.summary.tsv",
        regions=directory("results/{study}/export/{section}/qupath"),
        spatialdata=directory(
            "results/{study}/export/{section}/{section}.spatialdata.zarr"
        ),
    log:
        "logs/{study}/export_section/{section}.log",
    benchmark:
        "benchmarks/{study}/export_section/{section}.tsv"
    group:
        one_job("export")
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=20,
        gpu=0,
    params:
        runs=section_runs,
        code=code("export_section"),
    script:
        "../../scripts/export_section.py"


# Xenium Explorer shows cells, the other viewers spots
rule export_cells:
    input:
        spots="results/sections/{section}/spots.h5ad",
        cells="results/sections/{section}/cells.h5ad",
        calls=section_calls,
    output:
        groups=directory("results/{study}/export/{section}/{section}.xenium_groups"),
    log:
        "logs/{study}/export_cells/{section}.log",
    benchmark:
        "benchmarks/{study}/export_cells/{section}.tsv"
    wildcard_constraints:
        section=one_of(XENIUM),
    group:
        one_job("export")
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=10,
        gpu=0,
    params:
        runs=section_runs,
        code=code("export_cells"),
    script:
        "../../scripts/export_cells.py"


rule plot_section:
    input:
        spots="results/sections/{section}/spots.h5ad",
        image=image_file,
        labels=section_labels,
        calls=section_calls,
    output:
        figure=report(
            "results/{study}/figures/{section}.png",
            caption="../report/map.rst",
            category="Maps",
            labels={"section": "{section}"},
        ),
    log:
        "logs/{study}/plot_section/{section}.log",
    benchmark:
        "benchmarks/{study}/plot_section/{section}.tsv"
    group:
        one_job("export")
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=20,
        gpu=0,
    params:
        runs=section_runs,
        code=code("plot_section"),
    script:
        "../../scripts/plot_section.py"


# one line a section and run, for a spreadsheet
rule summarise_export:
    input:
        summaries=summaries,
    output:
        summary=report(
            "results/{study}/export/summary.tsv",
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
