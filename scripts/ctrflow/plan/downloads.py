"""What is fetched, and from where: plain downloads, archives, and the members taken out of them."""

from pathlib import Path
from typing import NamedTuple

from ctrflow.fetch import sources
from ctrflow.plan.load import Plan


class Download(NamedTuple):
    """One download; `lock` is where its digest is written down, "" for a member that a mirror has as a file."""

    url: str
    sha256: str
    mirror: str
    lock: str


class Member(NamedTuple):
    """One file in an archive."""

    archive: str
    member: str
    password: str


def members(plan: Plan) -> dict[str, Member]:
    """File -> the archive that holds it; one that the mirror has as a file needs no archive."""
    return {
        path: Member(sources.archive_path(line.url), line.member, line.password)
        for path, line in plan.sources.iterrows()
        if line.member and not Path(_mirrored(plan, path) or "-").is_file()
    }


def downloads(plan: Plan) -> dict[str, Download]:
    """Everything that is downloaded: plain files, and archives."""
    packed = members(plan)
    lock = str(sources.lock_path(plan.settings["sources"]))
    found = {}
    for path, line in plan.sources.iterrows():
        name = packed[path].archive if path in packed else path
        alone = bool(line.member) and path not in packed  # the list's digest is that of the archive
        found[name] = Download(line.url, "" if alone else line.sha256, _mirrored(plan, name), "" if alone else lock)
    return found


def _mirrored(plan: Plan, path: str) -> str:
    return sources.mirrored(path, plan.settings["data_root"])
