# Patches around the spots -> image features; and the patches themselves, for methods that read pixels.


ruleorder: crop_embedding > embed_section


rule embed_section:
    input:
        spots=f"{SECTION}/spots.h5ad",
        image=image_of,
        weights=lambda w: sections.weights(PLAN, w.encoder),
    output:
        embedding=EMBEDDING,
    log:
        "logs/embed_section/{encoder}/{section}.log",
    benchmark:
        "benchmarks/embed_section/{encoder}/{section}.tsv"
    group:
        embed_job
    conda:
        "../../envs/learn.yaml"
    threads: THREADS["embed"]
    resources:
        mem_mb=memory(6000),
        runtime=240,
        gpu=as_gpu(encoder_gpu),
        gres=as_gres(encoder_gpu),
    params:
        encoder=encoder_of,
        weights=lambda w: sections.own_sources(PLAN, sections.weights(PLAN, w.encoder)),
        device=lambda w: resources.device(PLAN, resources.is_network(PLAN, w.encoder)),
        threads=THREADS["embed"],
        code=lambda w: code(
            "embed_section", f"encoders.{encoders.module_name(encoder_of(w))}"
        ),
    script:
        "../../scripts/embed_section.py"


# a network sees each patch by itself, so a crop has the features of its section; other encoders scale by all patches of a
# section, and must see those of the crop alone
rule crop_embedding:
    input:
        spots=f"{SECTION}/spots.h5ad",
        embedding=lambda w: paths.embeddings(w.encoder, [parent_of(w)]),
    output:
        embedding=EMBEDDING,
    log:
        "logs/crop_embedding/{encoder}/{section}.log",
    benchmark:
        "benchmarks/crop_embedding/{encoder}/{section}.tsv"
    wildcard_constraints:
        section=one_of(CROPS),
        encoder=one_of(resources.networks(PLAN) if CROPS else []),
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
        code=code("crop_embedding"),
    script:
        "../../scripts/crop_embedding.py"


rule cut_patches:
    input:
        spots=f"{SECTION}/spots.h5ad",
        image=image_of,
    output:
        patches=directory(f"{PATCHES}/{{section}}.zarr"),
    log:
        "logs/cut_patches/{um}um-{px}px/{section}.log",
    benchmark:
        "benchmarks/cut_patches/{um}um-{px}px/{section}.tsv"
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


# one list for all jobs that train on the same sections: the patches themselves, per method and seed, would be more inputs
# than Snakemake plans in a minute. Digests in the list make these jobs re-run: Snakemake compares the content of small files
rule list_patches:
    input:
        patches=lambda w: paths.patches(w.um, w.px, STUDY.together[w.together]),
    output:
        patches=f"{PATCHES}/{{together}}.tsv",
    log:
        "logs/list_patches/{um}um-{px}px/{together}.log",
    benchmark:
        "benchmarks/list_patches/{um}um-{px}px/{together}.tsv"
    localrule: True
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=10,
        gpu=0,
    params:
        sections=lambda w: STUDY.together[w.together],
        code=code("list_patches"),
    script:
        "../../scripts/list_patches.py"


# the whole tissue in squares smaller than a cell, for methods that predict between the spots
rule cut_superpixels:
    input:
        spots=f"{SECTION}/spots.h5ad",
        image=image_of,
    output:
        superpixels=SUPERPIXELS,
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
