"""What a study will do, before any job runs: configuration, sheet and study are read and checked (load, sheet,
preflight), expanded into runs (study, run), given paths (paths) and resources (resources), and listed as plain rows for
the steps that look at a whole study (tables). Nothing here imports Snakemake.
"""
