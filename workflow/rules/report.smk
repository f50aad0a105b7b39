# The report.


rule report_study:
    input:
        metrics=METRICS,
        calls=tables.files("calls.tsv", RUNS),
        evidence=tables.files("evidence.json", RUNS),
        thresholds=tables.files("threshold.json", RUNS),
        losses=tables.files("losses.tsv", tables.trained(PLAN)),
        given=[run.table("target") for run in tables.uncropped(tables.given(PLAN))],
        spots=paths.of_sections("spots.h5ad", PLAN.used),
        images=tables.images(PLAN),
        labels=PLAN.labels(UNCROPPED),
        checks=paths.of_sections("check.json", PLAN.used),
        tables=[
            f"{TABLES}/{name}.tsv"
            for name in ("sections", "methods", "pairs", "published", "efficiency")
        ],
        within=f"{TABLES}/within.tsv" if tables.taught(PLAN) else [],
        figures=f"{FIGURES}/study",
    output:
        report=report(
            REPORT,
            caption="../report/report.rst",
            category="Report",
            labels={"page": "report"},
        ),
    log:
        "logs/{study}/report_study.log",
    benchmark:
        "benchmarks/{study}/report_study.tsv"
    group:
        STUDY_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(6000),
        runtime=30,
        gpu=0,
    params:
        runs=tables.rows(RUNS),
        trained=tables.rows(tables.trained(PLAN)),
        given=tables.rows(tables.uncropped(tables.given(PLAN))),
        targets=tables.targets(PLAN),
        methods=tables.methods(PLAN),
        tasks=tables.tasks(PLAN),
        study=PLAN.content,
        cautions=STUDY.cautions,
        sheet=[PLAN.row(name) for name in PLAN.used],
        not_applicable=STUDY.not_applicable,
        settings=tables.settings(PLAN),
        benchmarks=tables.benchmarks(PLAN),
        code=code("report_study"),
    script:
        "../../scripts/report_study.py"
