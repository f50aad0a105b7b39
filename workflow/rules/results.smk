# Scores of the target spots, calls, metrics, comparisons.


# the first step that reads the target table
for jobs in seeds.jobs("infer_scores", RUNS, resources.scores_fast):

    rule:
        name:
            jobs.name
        input:
            target=lambda w: run_of(w).table("target"),
            models=lambda w: [run.model for run in runs_of(w) if run.model],
            patches=lambda w: run_of(w).patches(run_of(w).fold.targets),
            superpixels=lambda w: paths.superpixels(
                run_of(w).scored_with("superpixels")
            ),
            markers=lambda w: sections.marker_lists(
                PLAN, run_of(w).scored_with("markers")
            ),
            positions=lambda w: sections.gene_table(
                run_of(w).judges or run_of(w).scored_with("positions")
            ),
            counts=lambda w: run_of(w).counts,
            truth=lambda w: PLAN.labels(run_of(w).scored_with("truth")),
            drawn=lambda w: run_of(w).drawn,
            prior=lambda w: run_of(w).prior_scores,
        output:
            scores=expand(f"{RUN}/scores.tsv", seed=jobs.seeds, allow_missing=True),
            evidence=expand(f"{RUN}/evidence.json", seed=jobs.seeds, allow_missing=True),
            costs=expand(f"{RUN}/infer_cost.json", seed=jobs.seeds, allow_missing=True),
        log:
            f"logs/{jobs.file}.log",
        benchmark:
            f"benchmarks/{jobs.file}.tsv"
        wildcard_constraints:
            task=jobs.tasks,
        group:
            score_job
        conda:
            "../../envs/learn.yaml"
        threads: THREADS["train"]
        resources:
            mem_mb=run_memory,
            runtime=lambda w, attempt: resources.score_minutes(run_of(w)) * attempt,
            gpu=as_gpu(run_gpu),
            gres=as_gres(run_gpu),
        params:
            sections=lambda w: run_of(w).fold.targets,
            platforms=lambda w: tables.platforms(PLAN, run_of(w).fold.targets),
            seeds=lambda w: [run.seed for run in runs_of(w)],
            method=lambda w: run_of(w).spec.name,
            options=lambda w: run_of(w).options,
            prior_threshold=lambda w: tables.prior_threshold(run_of(w)),
            device=lambda w: resources.device(PLAN, run_of(w).spec.gpu),
            threads=THREADS["train"],
            code=lambda w: code("infer_scores", f"methods.{run_of(w).spec.name}"),
        script:
            "../../scripts/infer_scores.py"


# many runs in one job: fitting a threshold takes milliseconds, starting a job seconds
for name, runs in tables.batches(RUNS).items():

    rule:
        name:
            name
        input:
            scores=tables.files("scores.tsv", runs),
            evidence=tables.files("evidence.json", runs),
            spots=paths.of_sections("spots.h5ad", tables.scored(runs)),
        output:
            calls=tables.files("calls.tsv", runs),
            thresholds=tables.files("threshold.json", runs),
            verdicts=tables.files("verdict.json", runs),
        log:
            f"logs/{STUDY.name}/{name}.log",
        benchmark:
            f"benchmarks/{STUDY.name}/{name}.tsv"
        group:
            STUDY_JOB
        conda:
            "../../envs/data.yaml"
        threads: 1
        resources:
            mem_mb=memory(2000),
            runtime=30,
            gpu=0,
        params:
            sections=tables.scored(runs),
            kinds=[line["threshold"] for line in tables.rows(runs)],
            code=code("call_spots"),
        script:
            "../../scripts/call_spots.py"


# the first step that reads calls and labels together
rule evaluate_study:
    input:
        calls=tables.files("calls.tsv", RUNS),
        verdicts=tables.files("verdict.json", RUNS),
        crops=paths.of_sections("crop.json", CROPS),
        losses=tables.files("losses.tsv", tables.trained(PLAN)),
        yardsticks=paths.of_sections("yardsticks.tsv", UNCROPPED),
        labels=PLAN.labels(TARGETS),
    output:
        metrics=report(
            METRICS,
            caption="../report/metrics.rst",
            category="Tables",
            labels={"table": "metrics"},
        ),
    log:
        "logs/{study}/evaluate_study.log",
    benchmark:
        "benchmarks/{study}/evaluate_study.tsv"
    group:
        STUDY_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
        gpu=0,
    params:
        runs=tables.rows(RUNS),
        trained=tables.rows(tables.trained(PLAN)),
        patients=tables.patients(PLAN),
        code=code("evaluate_study"),
    script:
        "../../scripts/evaluate_study.py"


# means, ranks, intervals and tests of the benchmark
rule tabulate_study:
    input:
        metrics=METRICS,
        calls=tables.files("calls.tsv", RUNS),
        labels=PLAN.labels(TARGETS),
    output:
        sections=f"{TABLES}/sections.tsv",
        methods=report(
            f"{TABLES}/methods.tsv",
            caption="../report/methods.rst",
            category="Tables",
            labels={"table": "methods"},
        ),
        pairs=report(
            f"{TABLES}/pairs.tsv",
            caption="../report/pairs.rst",
            category="Tables",
            labels={"table": "pairs"},
        ),
    log:
        "logs/{study}/tabulate_study.log",
    benchmark:
        "benchmarks/{study}/tabulate_study.tsv"
    group:
        STUDY_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
        gpu=0,
    params:
        runs=tables.rows(RUNS),
        code=code("tabulate_study"),
    script:
        "../../scripts/tabulate_study.py"


COSTS = tables.costs(PLAN)


# costs of the runs; read by no step that scores, calls or evaluates
rule tabulate_costs:
    input:
        costs=tables.once(COSTS, "pretrain", "train", "infer"),
        embeddings=tables.once(COSTS, "embedding"),
    output:
        efficiency=report(
            f"{TABLES}/efficiency.tsv",
            caption="../report/efficiency.rst",
            category="Tables",
            labels={"table": "efficiency"},
        ),
    log:
        "logs/{study}/tabulate_costs.log",
    benchmark:
        "benchmarks/{study}/tabulate_costs.tsv"
    group:
        STUDY_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=10,
        gpu=0,
    params:
        runs=COSTS,
        code=code("tabulate_costs"),
    script:
        "../../scripts/tabulate_costs.py"


# comparison with the papers, where sections, methods and settings are the same
rule compare_published:
    input:
        metrics=METRICS,
        calls=tables.files("calls.tsv", RUNS),
        labels=PLAN.labels(TARGETS),
        checks=paths.of_sections("check.json", PLAN.used),
        costs=f"{TABLES}/efficiency.tsv",
        published=shipped.found(load.PUBLISHED),
        names=shipped.found(load.PUBLISHED_NAMES),
    output:
        published=report(
            f"{TABLES}/published.tsv",
            caption="../report/published.rst",
            category="Tables",
            labels={"table": "published"},
        ),
        papers=directory(f"{TABLES}/papers"),
    log:
        "logs/{study}/compare_published.log",
    benchmark:
        "benchmarks/{study}/compare_published.tsv"
    group:
        STUDY_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=20,
        gpu=0,
    params:
        runs=tables.rows(RUNS),
        plan=tables.compared(PLAN),
        code=code("compare_published"),
    script:
        "../../scripts/compare_published.py"
