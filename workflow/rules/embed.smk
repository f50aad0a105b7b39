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
        mem_mb=memory(6000),
        runtime=240,
        gpu=encoder_gpus,
    params:
        encoder=encoder_options,
        device=encoder_device,
        threads=SETTINGS["threads"]["embed"],
        code=embed_code,
    script:
        "../../scripts/embed_section.py"
