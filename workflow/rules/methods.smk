# A method on a fold: a model, then a score per target spot. The target table reaches the second step only.


# what does not depend on a fold's target or genes is learned once and shared by all folds with the same normal reference
rule pretrain_method:
    input:
        train=pretraining_file,
        patches=pretraining_patches,
    output:
        model="results/{study}/pretrained/{weights}/seed{seed}.safetensors",
        losses="results/{study}/pretrained/{weights}/seed{seed}.losses.tsv",
        cost="results/{study}/pretrained/{weights}/seed{seed}.cost.json",
    log:
        "logs/{study}/pretrain_method/{weights}/seed{seed}.log",
    benchmark:
        "benchmarks/{study}/pretrain_method/{weights}/seed{seed}.tsv"
    conda:
        "../../envs/learn.yaml"
    threads: SETTINGS["threads"]["train"]
    resources:
        mem_mb=pretraining_memory,
        runtime=pretraining_minutes,
        gpu=as_gpu(pretraining_wants_gpu),
        gres=as_gres(pretraining_wants_gpu),
    params:
        method=pretraining_method,
        options=pretraining_options,
        device=SETTINGS["device"],
        threads=SETTINGS["threads"]["train"],
        code=pretraining_code,
    script:
        "../../scripts/pretrain_method.py"


rule train_method:
    input:
        train=train_file,
        patches=learned_patches,
        pretrained=pretrained_file,
    output:
        model="results/{study}/{task}/{fold}/{encoder}/{method}/seed{seed}/model.safetensors",
        losses="results/{study}/{task}/{fold}/{encoder}/{method}/seed{seed}/losses.tsv",
        cost="results/{study}/{task}/{fold}/{encoder}/{method}/seed{seed}/train_cost.json",
    log:
        "logs/{study}/train_method/{task}/{fold}/{encoder}/{method}/seed{seed}.log",
    benchmark:
        "benchmarks/{study}/train_method/{task}/{fold}/{encoder}/{method}/seed{seed}.tsv"
    group:
        run_job
    conda:
        "../../envs/learn.yaml"
    threads: SETTINGS["threads"]["train"]
    resources:
        mem_mb=method_memory,
        runtime=train_minutes,
        gpu=as_gpu(wants_gpu),
        gres=as_gres(wants_gpu),
    params:
        method=method_of,
        options=options_of,
        encoder=trained_encoder,
        device=method_device,
        threads=SETTINGS["threads"]["train"],
        code=train_code,
    script:
        "../../scripts/train_method.py"


# the same on all that a task can train on: one file to score sections with that nobody has seen yet
use rule train_method as export_model with:
    input:
        train=source_file,
        patches=learned_patches,
    output:
        model="results/{study}/model/{task}/{encoder}/{method}.seed{seed}.safetensors",
        losses="results/{study}/model/{task}/{encoder}/{method}.seed{seed}.losses.tsv",
        cost="results/{study}/model/{task}/{encoder}/{method}.seed{seed}.cost.json",
    log:
        "logs/{study}/export_model/{task}/{encoder}/{method}/seed{seed}.log",
    benchmark:
        "benchmarks/{study}/export_model/{task}/{encoder}/{method}/seed{seed}.tsv"


rule infer_scores:
    input:
        target=target_file,
        model=scoring_model,
        patches=target_patches,
        superpixels=target_superpixels,
        markers=target_markers,
        truth=truth_files,
    output:
        scores="results/{study}/{task}/{fold}/{encoder}/{method}/seed{seed}/scores.tsv",
        cost="results/{study}/{task}/{fold}/{encoder}/{method}/seed{seed}/infer_cost.json",
    log:
        "logs/{study}/infer_scores/{task}/{fold}/{encoder}/{method}/seed{seed}.log",
    benchmark:
        "benchmarks/{study}/infer_scores/{task}/{fold}/{encoder}/{method}/seed{seed}.tsv"
    group:
        run_job
    conda:
        "../../envs/learn.yaml"
    threads: SETTINGS["threads"]["train"]
    resources:
        mem_mb=method_memory,
        runtime=infer_minutes,
        gpu=as_gpu(wants_gpu),
        gres=as_gres(wants_gpu),
    params:
        sections=target_sections,
        method=method_of,
        options=options_of,
        device=method_device,
        threads=SETTINGS["threads"]["train"],
        code=infer_code,
    script:
        "../../scripts/infer_scores.py"
