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
    log:
        "logs/{study}/export_section/{section}.log",
    benchmark:
        "benchmarks/{study}/export_section/{section}.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=20,
        gpu=0,
    params:
        runs=section_runs,
        code=code("export_section"),
    script:
        "../../scripts/export_section.py"


rule plot_section:
    input:
        spots="results/sections/{section}/spots.h5ad",
        image=image_file,
        labels=section_labels,
        calls=section_calls,
    output:
        figure="results/{study}/figures/{section}.png",
    log:
        "logs/{study}/plot_section/{section}.log",
    benchmark:
        "benchmarks/{study}/plot_section/{section}.tsv"
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
        summary="results/{study}/export/summary.tsv",
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
