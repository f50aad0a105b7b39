# ctrflow: from raw vendor files to maps of cancer tissue regions.
#
# results/sections/{section}/      spots.h5ad, labels.tsv, check.json and its picture
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
include: "workflow/rules/within.smk"
include: "workflow/rules/results.smk"
include: "workflow/rules/rim.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/doctor.smk"


# everything: report, maps, exports, checks
rule all:
    input:
        REPORT.format(study=STUDY.name),
        tables.maps(PLAN),
        tables.exports(PLAN),
        paths.of_sections("check.json", PLAN.used),
        paths.of_sections("overlay.png", PLAN.used),


# everything for one section that is given by --config path=... instead of a row of the section sheet
rule map:
    input:
        rules.all.input,


# maps and exports of all target sections, without the report
rule maps:
    input:
        tables.maps(PLAN),
        tables.exports(PLAN),


# checks of all sections, each with a picture of its spots on its image
rule checks:
    input:
        paths.of_sections("check.json", PLAN.used),
        paths.of_sections("overlay.png", PLAN.used),


# one model file per method and seed, trained on all that a task can train on, to score new sections
rule model:
    input:
        models_to_export,


# metrics only
rule metrics:
    input:
        METRICS.format(study=STUDY.name),


onstart:
    require_cluster_path()


onsuccess:
    print(doctor_page() if DOCTOR else where_results_are())


onerror:
    print(doctor_page() + what_to_do(log))
