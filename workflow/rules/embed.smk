# Patches around the spots -> image features; and the patches themselves, for methods that look at pixels.


localrules:
    list_patches,


rule embed_section:
    input:
        spots="results/sections/{section}/spots.h5ad",
        image=image_file,
        weights=weights_file,
    output:
        embedding="results/embeddings/{encoder}/{section}.h5ad",
    log:
        "logs/embed_section/{encoder}/{section}.log",
    benchmark:
        "benchmarks/embed_section/{encoder}/{section}.tsv"
    group:
        embed_job
    conda:
        "../../envs/learn.yaml"
    threads: SETTINGS["threads"]["embed"]
    resources:
        mem_mb=memory(6000),
        runtime=240,
        gpu=as_gpu(encoder_wants_gpu),
        gres=as_gres(encoder_wants_gpu),
    params:
        encoder=encoder_options,
        weights=weights_source,
        device=encoder_device,
        threads=SETTINGS["threads"]["embed"],
        code=embed_code,
    script:
        "../../scripts/embed_section.py"


rule cut_patches:
    input:
        spots="results/sections/{section}/spots.h5ad",
        image=image_file,
    output:
        patches=directory("results/patches/{um}um-{px}px/{section}.zarr"),
    log:
        "logs/cut_patches/{um}um-{px}px/{section}.log",
    benchmark:
        "benchmarks/cut_patches/{um}um-{px}px/{section}.tsv"
    wildcard_constraints:
        um=r"[\d.]+",
        px=r"\d+",
    group:
        SECTION_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
        gpu=0,
    params:
        code=code("cut_patches"),
    script:
        "../../scripts/cut_patches.py"


# one file for all jobs that learn from the same sections: the pictures of all, for each method and seed of a large study,
# are more files than Snakemake plans in a minute. The digests make them learn again: of a small file Snakemake compares
# the content, whatever its time
rule list_patches:
    input:
        patches=patches_to_list,
    output:
        patches="results/patches/{um}um-{px}px/{together}.tsv",
    log:
        "logs/list_patches/{um}um-{px}px/{together}.log",
    benchmark:
        "benchmarks/list_patches/{um}um-{px}px/{together}.tsv"
    wildcard_constraints:
        um=r"[\d.]+",
        px=r"\d+",
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=10,
        gpu=0,
    params:
        sections=patches_together,
        code=code("list_patches"),
    script:
        "../../scripts/list_patches.py"


# the whole tissue in squares smaller than a cell, for methods that paint between the spots
rule cut_superpixels:
    input:
        spots="results/sections/{section}/spots.h5ad",
        image=image_file,
    output:
        superpixels="results/superpixels/{section}.h5ad",
    log:
        "logs/cut_superpixels/{section}.log",
    benchmark:
        "benchmarks/cut_superpixels/{section}.tsv"
    group:
        SECTION_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
        gpu=0,
    params:
        code=code("cut_superpixels"),
    script:
        "../../scripts/cut_superpixels.py"
