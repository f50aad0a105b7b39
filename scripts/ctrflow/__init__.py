"""ctrflow: cancer tissue regions from paired H&E and spatial transcriptomics. Knows nothing of Snakemake."""

__version__ = "0.2.0"
