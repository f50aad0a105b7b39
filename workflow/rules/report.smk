# What people look at.


rule report_study:
    input:
        metrics="results/{study}/metrics.tsv",
        calls=run_files("calls.tsv"),
        thresholds=run_files("threshold.json"),
        losses=run_files("losses.tsv", trained_runs()),
        given=[target_file(run) for run in given_runs()],
        spots=spots_files(used_sections()),
        images=target_images(),
        labels=labels_files(STUDY.targets()),
        checks=check_files(),
        tables=[
            f"results/{{study}}/tables/{name}.tsv"
            for name in ("sections", "methods", "pairs", "published", "efficiency")
        ],
        figures="results/{study}/figures/study",
    output:
        report=report(
            "results/{study}/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"page": "report"},
        ),
    log:
        "logs/{study}/report_study.log",
    benchmark:
        "benchmarks/{study}/report_study.tsv"
    group:
        one_job("study")
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(6000),
        runtime=30,
        gpu=0,
    params:
        runs=run_table(STUDY.runs),
        trained=run_table(trained_runs()),
        given=run_table(given_runs()),
        targets=target_table(),
        methods=method_table(),
        tasks=task_sentences(),
        study=STUDY_CONTENT,
        sheet=sheet_rows(used_sections()),
        not_applicable=STUDY.not_applicable,
        settings=shown_settings(),
        benchmarks=benchmark_table(),
        code=code("report_study"),
    script:
        "../../scripts/report_study.py"
