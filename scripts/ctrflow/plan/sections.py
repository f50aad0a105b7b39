"""The inputs of ingest and embedding for a section: the vendor's files, its image, and their digests."""

from pathlib import Path

from ctrflow import digests, readers
from ctrflow.encoders import NAMED_WEIGHTS
from ctrflow.errors import InputError
from ctrflow.features import markers
from ctrflow.fetch import sources
from ctrflow.plan import paths, shipped
from ctrflow.plan.load import GENES, MARKERS, Plan


def raw_files(plan: Plan, section: str) -> list[str]:
    """The files that ingest reads for a section: the downloads in its folder, or those that the reader lists."""
    line = plan.row(section)
    inside = sources.below(plan.sources, line["path"])
    if not inside:
        return readers.files(line)
    return [*inside, line["alignment"]] if line["alignment"] else inside


def image(plan: Plan, section: str) -> list[str]:
    """The image of a section: the sheet's, or the vendor's own."""
    own = readers.given_image(plan.row(section))
    return [own] if own else vendor_image(plan, section)


def vendor_image(plan: Plan, section: str) -> list[str]:
    """The vendor's reduced image, present or still to be downloaded."""
    line = plan.row(section)
    inside = readers.platforms()[line["platform"]].image
    if not inside or line["image"] == readers.NO_IMAGE:
        return []
    path = str(Path(line["path"]) / inside)
    if path in plan.sources.index or path.startswith(f"{paths.DEMO}/"):
        return [path]
    try:
        path = readers.image_path(line | {"image": ""})
    except InputError:
        return []  # the reader will report what is wrong with the folder
    return [path] if path else []


def reader_row(plan: Plan, section: str) -> dict:
    """The part of a section's row that a reader uses: editing notes or labels must not trigger reading it again."""
    return {key: value for key, value in plan.row(section).items() if key not in ("labels", "normal", "note")}


def reader(plan: Plan, section: str) -> str:
    """The module that reads a section, whose code is added to the digest of the step."""
    return f"readers.{plan.row(section)['platform']}"


def demo_files(plan: Plan) -> list[str]:
    """The raw files of the demo cohort that are read."""
    files = set()
    for name in plan.sheet.index[plan.sheet.path.str.startswith(f"{paths.DEMO}/")]:
        line = plan.row(name)
        files |= {*readers.files(line), *vendor_image(plan, name), line["image"], line["labels"], line["alignment"]}
    return sorted(files - {""})


def weights(plan: Plan, encoder: str) -> str | list:
    """The local file of an encoder's weights, none where there is no such file."""
    named = plan.settings["encoders"][encoder].get("weights", "")
    return [] if named in ("", *NAMED_WEIGHTS) else named


def own_sources(plan: Plan, *files: str) -> dict[str, str]:
    """The state of a job's source files, to notice one that was replaced; without files that rules make.

    A rule's parameter must call it with wildcards alone: Snakemake does not compare parameters that use `input`.
    """
    made = (path for path in files if path and not path.startswith(f"{paths.DEMO}/"))
    return digests.of_sources(path for path in made if path not in plan.sources.index)


def raw_sources(plan: Plan, section: str) -> dict[str, str]:
    """The state of the vendor files of a section and of its image."""
    return own_sources(plan, *raw_files(plan, section), *image(plan, section))


def label_sources(plan: Plan, section: str) -> dict[str, str]:
    """The state of the labels of a section and of the table of what their words mean."""
    return own_sources(plan, plan.row(section)["labels"], plan.settings["label_words"])


def drawn_sources(plan: Plan, section: str) -> dict[str, str]:
    """The state of what is drawn in a section and of the table of what its words mean."""
    return own_sources(plan, plan.row(section)["drawn"], plan.settings["label_words"])


def marker_lists(plan: Plan, names) -> list:
    """The marker list of each section's tissue."""
    folder = shipped.found(MARKERS, "*.tsv")
    return [markers.path_of(plan.row(name)["tissue"], folder) for name in names]


def known_marker_lists(plan: Plan) -> list:
    """The distinct marker lists of the targets' tissues, for tissues that have one."""
    known = markers.tissues(shipped.found(MARKERS, "*.tsv"))
    marked = [name for name in plan.study.targets if plan.row(name)["tissue"].strip().casefold() in known]
    return list(dict.fromkeys(marker_lists(plan, marked)))


def gene_table(wanted) -> str | list:
    """The table of human genes, where it is wanted: for a given model, since a section may name its genes in another
    way, or for sections whose genes' places are read."""
    return shipped.found(GENES) if wanted else []
