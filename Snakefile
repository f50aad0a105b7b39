# ctrflow: from raw vendor files to maps of cancer tissue regions.
#
# results/sections/{section}/      spots and, apart from them, labels; a check with a picture
# results/embeddings/{encoder}/    image features of each section
# results/{study}/                 folds, models, scores and calls by task, fold, encoder, method and seed;
#                                  metrics.tsv, report.html, figures/, export/; model/ for new sections
from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/sections.smk"
include: "workflow/rules/image.smk"
include: "workflow/rules/folds.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/results.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/doctor.smk"


localrules:
    all,
    maps,
    metrics,
    model,
    checks,


# everything: the report, and the files that other viewers open
rule all:
    default_target: True
    input:
        REPORT.format(study=STUDY.name),
        tables.maps(PLAN),
        tables.exports(PLAN),
        paths.of_sections("check.json", PLAN.used),
        paths.of_sections("overlay.png", PLAN.used),


# a map and the exported files of every target section, no report
rule maps:
    input:
        tables.maps(PLAN),
        tables.exports(PLAN),


# whether each section is what it should be, with a picture of its spots on its image
rule checks:
    input:
        paths.of_sections("check.json", PLAN.used),
        paths.of_sections("overlay.png", PLAN.used),


# a file for each method and seed, trained on all that a task can train on: to score new sections with
rule model:
    input:
        models_to_export,


# the numbers alone
rule metrics:
    input:
        METRICS.format(study=STUDY.name),


onsuccess:
    print(what_the_doctor_found() if DOCTOR else what_was_made())


onerror:
    print(what_the_doctor_found() + what_to_do(log))
