"""The plan of a study, before any job runs: configuration, sheet and study are read and checked (load, sheet,
preflight), expanded into runs (study, run), given paths (paths) and resources (resources), and listed as plain rows for
the steps that use a whole study (tables). Nothing in this package imports Snakemake.
"""
