"""A call per spot: the crossing of a Gaussian mixture fitted to each section's scores."""

from ctrflow import logs, storage, threshold

logger = logs.setup(snakemake.log[0])
table = storage.read_tsv(snakemake.input.scores)
fits = {section: threshold.fit(group.score.to_numpy()) for section, group in table.groupby("section", sort=False)}
for section, group in table.groupby("section", sort=False):
    table.loc[group.index, "call"] = fits[section].call(group.score.to_numpy())
    logger.info("%s: %s threshold %s", section, fits[section].branch, fits[section].threshold)
storage.write_tsv(table.astype({"call": int}), snakemake.output.calls)
storage.write_json({section: fit.as_dict() for section, fit in fits.items()}, snakemake.output.threshold)
