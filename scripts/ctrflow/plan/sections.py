"""What ingest and the embeddings read of a section: the vendor's files, its image, and what tells them from others."""

from pathlib import Path

from ctrflow import digests, readers
from ctrflow.errors import InputError
from ctrflow.features import markers
from ctrflow.fetch import sources
from ctrflow.plan import paths
from ctrflow.plan.load import MARKERS, Plan


def raw_files(plan: Plan, section: str) -> list[str]:
    """What ingest reads of a section: the downloads that lie in its folder, or what the reader finds there."""
    line = plan.row(section)
    inside = sources.below(plan.sources, line["path"])
    if not inside:
        return readers.files(line)
    return [*inside, line["alignment"]] if line["alignment"] else inside


def image(plan: Plan, section: str) -> list[str]:
    """The image of a section: the sheet's, or the one that the vendor adds."""
    own = plan.row(section)["image"]
    return [own] if own else vendor_image(plan, section)


def vendor_image(plan: Plan, section: str) -> list[str]:
    """The reduced image that the vendor adds, there or still to come."""
    line = plan.row(section)
    inside = readers.platforms()[line["platform"]].image
    if not inside:
        return []
    path = str(Path(line["path"]) / inside)
    if path in plan.sources.index or path.startswith(f"{paths.DEMO}/"):
        return [path]
    try:
        found = readers.image_path(line | {"image": ""})
    except InputError:
        return []  # the reader tells what is wrong with the folder
    return [found] if found else []


def reader_row(plan: Plan, section: str) -> dict:
    """What a reader takes from a section's line: an edited note or label column is no reason to read it again."""
    return {key: value for key, value in plan.row(section).items() if key not in ("labels", "normal", "note")}


def reader(plan: Plan, section: str) -> str:
    """The module that reads a section, below the package: what its digest of code adds to that of the step."""
    return f"readers.{plan.row(section)['platform']}"


def demo_files(plan: Plan) -> list[str]:
    """The raw files of the demo cohort that anything reads."""
    found = set()
    for name in plan.sheet.index[plan.sheet.path.str.startswith(f"{paths.DEMO}/")]:
        line = plan.row(name)
        found |= {*readers.files(line), *vendor_image(plan, name), line["image"], line["labels"], line["alignment"]}
    return sorted(found - {""})


def weights(plan: Plan, encoder: str) -> str | list:
    """The local file of an encoder's weights, none where there is no such file."""
    named = plan.settings["encoders"][encoder].get("weights", "")
    return [] if named in ("", "hub", "random") else named


def own_sources(plan: Plan, *files: str) -> dict[str, str]:
    """What a job's sources are, to notice one that was replaced; of those that no rule makes."""
    made = (path for path in files if path and not path.startswith(f"{paths.DEMO}/"))
    return digests.of_sources(path for path in made if path not in plan.sources.index)


def marker_lists(plan: Plan, names) -> list:
    """The marker genes of the tissues of sections, one list a section."""
    return [markers.path_of(plan.row(name)["tissue"], MARKERS) for name in names]


def known_marker_lists(plan: Plan) -> list:
    """The marker genes of the targets' tissues, of those that have a list, each once."""
    known = markers.tissues(MARKERS)
    marked = [name for name in plan.study.targets if plan.row(name)["tissue"].strip().casefold() in known]
    return list(dict.fromkeys(marker_lists(plan, marked)))
