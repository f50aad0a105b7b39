"""Cut the patch around every spot of a section, for methods that read pixels."""

from ctrflow import image, logs, storage

logs.setup(snakemake.log[0])
spots = storage.read_h5ad(snakemake.input.spots, with_x=False)
patches = image.section_patches(spots, float(snakemake.wildcards.um), int(snakemake.wildcards.px))
storage.write_patches(patches, spots.obs_names, float(snakemake.wildcards.um), snakemake.output.patches)
