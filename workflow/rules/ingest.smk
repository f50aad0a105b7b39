# Vendor files -> spots, and labels apart from them.


# spots of all sections but those of Xenium
rule ingest_section:
    input:
        raw=raw_files,
        image=image_file,
    output:
        spots="results/sections/{section}/spots.h5ad",
    log:
        "logs/ingest_section/{section}.log",
    benchmark:
        "benchmarks/ingest_section/{section}.tsv"
    wildcard_constraints:
        section=one_of(set(SECTIONS.index) - set(XENIUM)),
    group:
        SECTION_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=20,
        gpu=0,
    params:
        row=reader_row,
        sources=section_sources,
        code=ingest_code,
    script:
        "../../scripts/ingest_section.py"


# the cells of a Xenium bundle
rule ingest_cells:
    input:
        raw=raw_files,
        image=image_file,
    output:
        cells="results/sections/{section}/cells.h5ad",
    log:
        "logs/ingest_cells/{section}.log",
    benchmark:
        "benchmarks/ingest_cells/{section}.tsv"
    wildcard_constraints:
        section=one_of(XENIUM),
    group:
        SECTION_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=20,
        gpu=0,
    params:
        row=reader_row,
        sources=section_sources,
        code=ingest_code,
    script:
        "../../scripts/ingest_cells.py"


# cells -> spots of Visium geometry
rule aggregate_cells:
    input:
        cells="results/sections/{section}/cells.h5ad",
        image=image_file,
    output:
        spots="results/sections/{section}/spots.h5ad",
    log:
        "logs/aggregate_cells/{section}.log",
    benchmark:
        "benchmarks/aggregate_cells/{section}.tsv"
    wildcard_constraints:
        section=one_of(XENIUM),
    group:
        SECTION_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=20,
        gpu=0,
    params:
        code=code("aggregate_cells"),
    script:
        "../../scripts/aggregate_cells.py"


# the truth, in a file of its own
rule label_section:
    input:
        spots="results/sections/{section}/spots.h5ad",
        cells=cells_file,
        labels=labels_source,
        words=SETTINGS["label_words"],
    output:
        labels="results/sections/{section}/labels.tsv",
    log:
        "logs/label_section/{section}.log",
    benchmark:
        "benchmarks/label_section/{section}.tsv"
    group:
        SECTION_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=10,
        gpu=0,
    params:
        sources=label_sources,
        code=code("label_section"),
    script:
        "../../scripts/label_section.py"


# whether the image is the one that the coordinates belong to, and the counts those of the paper; a picture to look at
rule check_section:
    input:
        spots="results/sections/{section}/spots.h5ad",
        image=image_file,
        vendor_image=vendor_image,
        labels=section_labels,
        published=PUBLISHED,
    output:
        check="results/sections/{section}/check.json",
        overlay="results/sections/{section}/overlay.png",
    log:
        "logs/check_section/{section}.log",
    benchmark:
        "benchmarks/check_section/{section}.tsv"
    group:
        SECTION_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(6000),
        runtime=20,
        gpu=0,
    params:
        code=code("check_section"),
    script:
        "../../scripts/check_section.py"
