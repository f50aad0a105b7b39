"""What a study will do, before anything is done: read and checked (load), expanded (study, run), named (paths), sized
(resources) and handed to the steps as plain rows (tables). Nothing here knows Snakemake.
"""
