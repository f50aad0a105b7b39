# ctrflow: from raw vendor files to maps of cancer tissue regions.
#
# results/sections/{section}/      spots and, apart from them, labels
# results/embeddings/{encoder}/    image features of each section
# results/{study}/                 folds, models, scores and calls by task, fold, encoder, method and seed;
#                                  metrics.tsv, report.html, figures/, export/
from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/ingest.smk"
include: "workflow/rules/embed.smk"
include: "workflow/rules/folds.smk"
include: "workflow/rules/methods.smk"
include: "workflow/rules/calls.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/export.smk"


localrules:
    all,
    maps,
    metrics,


# everything: the report, and the files that other viewers open
rule all:
    default_target: True
    input:
        f"results/{STUDY.name}/report.html",
        figures(),
        exports(),


# a map and the exported files of every target section, no report
rule maps:
    input:
        figures(),
        exports(),


# the numbers alone
rule metrics:
    input:
        f"results/{STUDY.name}/metrics.tsv",


onsuccess:
    print("\nctrflow: " + "; ".join(what_was_made()))
