# Vendor files -> spots, and labels in a file of their own; sections -> their tumour-free crops.


# spots of a section that the vendor gives as spots
rule ingest_section:
    input:
        raw=lambda w: sections.raw_files(PLAN, w.section),
        image=image_of,
    output:
        spots=f"{SECTION}/spots.h5ad",
    log:
        "logs/ingest_section/{section}.log",
    benchmark:
        "benchmarks/ingest_section/{section}.tsv"
    wildcard_constraints:
        section=one_of({*PLAN.sheet.index} - {*OF_CELLS, *CROPS}),
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
        row=lambda w: sections.reader_row(PLAN, w.section),
        sources=lambda w: sections.raw_sources(PLAN, w.section),
        code=lambda w: code("ingest_section", sections.reader(PLAN, w.section)),
    script:
        "../../scripts/ingest_section.py"


# a section that the vendor gives as cells, as Xenium does: its cells, and the spots that they are summed into
rule ingest_cells:
    input:
        raw=lambda w: sections.raw_files(PLAN, w.section),
        image=image_of,
    output:
        cells=f"{SECTION}/cells.h5ad",
        spots=f"{SECTION}/spots.h5ad",
    log:
        "logs/ingest_cells/{section}.log",
    benchmark:
        "benchmarks/ingest_cells/{section}.tsv"
    wildcard_constraints:
        section=one_of(OF_CELLS),
    group:
        SECTION_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=30,
        gpu=0,
    params:
        row=lambda w: sections.reader_row(PLAN, w.section),
        sources=lambda w: sections.raw_sources(PLAN, w.section),
        code=lambda w: code("ingest_cells", sections.reader(PLAN, w.section)),
    script:
        "../../scripts/ingest_cells.py"


# labels, in a file of their own
rule label_section:
    input:
        spots=f"{SECTION}/spots.h5ad",
        cells=lambda w: (
            f"{SECTION}/cells.h5ad".format(**w) if w.section in OF_CELLS else []
        ),
        labels=lambda w: PLAN.row(w.section)["labels"],
        words=SETTINGS["label_words"],
    output:
        labels=f"{SECTION}/labels.tsv",
    log:
        "logs/label_section/{section}.log",
    benchmark:
        "benchmarks/label_section/{section}.tsv"
    wildcard_constraints:
        section=one_of({*PLAN.sheet.index} - {*CROPS}),
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
        sources=lambda w: sections.label_sources(PLAN, w.section),
        code=code("label_section"),
    script:
        "../../scripts/label_section.py"


# a section without its tumour, on which every call is wrong; nothing that the section itself is scored by reads it
rule crop_section:
    input:
        spots=lambda w: paths.of_sections("spots.h5ad", [parent_of(w)]),
        labels=lambda w: PLAN.labels([parent_of(w)]),
    output:
        spots=f"{SECTION}/spots.h5ad",
        labels=f"{SECTION}/labels.tsv",
        facts=f"{SECTION}/crop.json",
    log:
        "logs/crop_section/{section}.log",
    benchmark:
        "benchmarks/crop_section/{section}.tsv"
    wildcard_constraints:
        section=one_of(CROPS),
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
        code=code("crop_section"),
    script:
        "../../scripts/crop_section.py"


# do image, coordinates and counts belong together? with a picture of the spots on the image, and what scores are held
# against: the counts and the darkness of each spot
rule check_section:
    input:
        spots=f"{SECTION}/spots.h5ad",
        image=image_of,
        vendor_image=lambda w: sections.vendor_image(PLAN, w.section),
        labels=lambda w: PLAN.labels([w.section]),
        published=shipped.found(load.PUBLISHED),
    output:
        check=f"{SECTION}/check.json",
        overlay=f"{SECTION}/overlay.png",
        yardsticks=f"{SECTION}/yardsticks.tsv",
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
