# What lies around the called tumours: layers, genes that differ between them, cell types.


rule tabulate_layers:
    input:
        calls=tables.files("calls.tsv", tables.uncropped(RUNS)),
        evidence=tables.files("evidence.json", tables.uncropped(RUNS)),
        spots=paths.of_sections("spots.h5ad", UNCROPPED),
        cell_types=shipped.found(load.CELL_TYPES),
        genes=shipped.found(load.GENES),
    output:
        layers=report(
            f"{TABLES}/layers.tsv",
            caption="../report/layers.rst",
            category="Tables",
            labels={"table": "layers"},
        ),
        genes=report(
            f"{TABLES}/layer_genes.tsv",
            caption="../report/layer_genes.rst",
            category="Tables",
            labels={"table": "genes of layers"},
        ),
        cells=report(
            f"{TABLES}/layer_cells.tsv",
            caption="../report/layer_cells.rst",
            category="Tables",
            labels={"table": "cell types of layers"},
        ),
    log:
        "logs/{study}/tabulate_layers.log",
    benchmark:
        "benchmarks/{study}/tabulate_layers.tsv"
    group:
        STUDY_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(6000),
        runtime=60,
        gpu=0,
    params:
        targets=tables.targets(PLAN),
        patients=tables.patients(PLAN),
        reads_genes=tables.read_genes(PLAN),
        widths_um=PLAN.content["layers_um"],
        code=code("tabulate_layers"),
    script:
        "../../scripts/tabulate_layers.py"
