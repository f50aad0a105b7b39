# Patches around the spots -> image features.


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
    conda:
        "../../envs/learn.yaml"
    threads: SETTINGS["threads"]["embed"]
    resources:
        mem_mb=6000,
        runtime=240,
        gpu=encoder_gpus,
    params:
        encoder=lambda wildcards: SETTINGS["encoders"][wildcards.encoder],
        device=SETTINGS["device"],
        threads=SETTINGS["threads"]["embed"],
        code=encoder_code,
    script:
        "../../scripts/embed_section.py"
