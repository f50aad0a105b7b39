# Training table -> model. No target table is read here.


# weights that depend on the normal reference alone, trained once for all folds that share it
rule pretrain_method:
    input:
        train=lambda w: run_of(w).table("train"),
        patches=lambda w: run_of(w).patch_list,
    output:
        model=f"{PRETRAINED}.safetensors",
        losses=f"{PRETRAINED}.losses.tsv",
        cost=f"{PRETRAINED}.cost.json",
    log:
        "logs/{study}/pretrain_method/{weights}/seed{seed}.log",
    benchmark:
        "benchmarks/{study}/pretrain_method/{weights}/seed{seed}.tsv"
    conda:
        "../../envs/learn.yaml"
    threads: THREADS["train"]
    resources:
        mem_mb=run_memory,
        runtime=lambda w, attempt: run_of(w).spec.minutes * attempt,
        gpu=as_gpu(run_gpu),
        gres=as_gres(run_gpu),
    params:
        method=lambda w: run_of(w).spec.name,
        options=lambda w: run_of(w).pretrain_options,
        device=SETTINGS["device"],
        threads=THREADS["train"],
        code=lambda w: code("pretrain_method", f"methods.{run_of(w).spec.name}"),
    script:
        "../../scripts/pretrain_method.py"


rule train_method:
    input:
        train=lambda w: run_of(w).table("train"),
        patches=lambda w: run_of(w).patch_list,
        pretrained=lambda w: run_of(w).weights(),
    output:
        model=f"{RUN}/model.safetensors",
        losses=f"{RUN}/losses.tsv",
        cost=f"{RUN}/train_cost.json",
    log:
        "logs/{study}/train_method/{task}/{fold}/{encoder}/{method}/seed{seed}.log",
    benchmark:
        "benchmarks/{study}/train_method/{task}/{fold}/{encoder}/{method}/seed{seed}.tsv"
    group:
        run_job
    conda:
        "../../envs/learn.yaml"
    threads: THREADS["train"]
    resources:
        mem_mb=run_memory,
        runtime=lambda w, attempt: run_of(w).spec.minutes * attempt,
        gpu=as_gpu(run_gpu),
        gres=as_gres(run_gpu),
    params:
        method=lambda w: run_of(w).spec.name,
        options=lambda w: run_of(w).options,
        encoder=lambda w: run_of(w).encoder_settings(SETTINGS["encoders"]),
        device=lambda w: resources.device(PLAN, run_of(w).spec.gpu),
        threads=THREADS["train"],
        code=lambda w: code("train_method", f"methods.{run_of(w).spec.name}"),
    script:
        "../../scripts/train_method.py"


# the same on all that a task can train on: a model file to score new sections
use rule train_method as export_model with:
    input:
        train=lambda w: run_of(w).table("train"),
        patches=lambda w: run_of(w).patch_list,
    output:
        model=f"{MODEL}.safetensors",
        losses=f"{MODEL}.losses.tsv",
        cost=f"{MODEL}.cost.json",
    log:
        "logs/{study}/export_model/{task}/{encoder}/{method}/seed{seed}.log",
    benchmark:
        "benchmarks/{study}/export_model/{task}/{encoder}/{method}/seed{seed}.tsv"
