"""Downloads and their urls: files, archives, and the members unpacked from them."""

from pathlib import Path
from typing import NamedTuple

from ctrflow.fetch import sources
from ctrflow.plan.load import Plan


class Download(NamedTuple):
    """One download; `lock` is the file that records its digest, "" for a member that the mirror has unpacked."""

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
    """File -> its archive, for all members of archives except those that the mirror has unpacked."""
    return {
        path: Member(sources.archive_path(line.url), line.member, line.password)
        for path, line in plan.sources.iterrows()
        if line.member and not Path(_mirrored(plan, path) or "-").is_file()
    }


def downloads(plan: Plan) -> dict[str, Download]:
    """Path -> download, of plain files and of archives."""
    packed = members(plan)
    lock = str(sources.lock_path(plan.settings["sources"]))
    result = {}
    for path, line in plan.sources.iterrows():
        name = packed[path].archive if path in packed else path
        unpacked = bool(line.member) and path not in packed  # the listed digest is that of the archive
        result[name] = Download(
            line.url, "" if unpacked else line.sha256, _mirrored(plan, name), "" if unpacked else lock
        )
    return result


def _mirrored(plan: Plan, path: str) -> str:
    return sources.mirrored(path, plan.settings["data_root"])
