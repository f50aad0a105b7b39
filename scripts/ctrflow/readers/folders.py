"""Find vendor files as users have them: in `outs` or the folder above, with or without a sample name as prefix."""

import re
from pathlib import Path

from ctrflow.errors import InputError
from ctrflow.readers.kinds import has


def outs(path: str | Path, *marks: str) -> Path:
    """The folder that holds one of `marks` (glob patterns): `path`, or the `outs` in it (Space Ranger's, Xenium's)."""
    folder = Path(path)
    if has(folder, marks) or not (folder / "outs").is_dir():
        return folder
    return folder / "outs"


def find(folders: list[Path], names: list[str], what: str) -> Path | None:
    """The first of `names` that exists in one of `folders`, gzipped or not, with or without a sample prefix.

    Downloads from 10x and GEO are named `<sample>_<name>`.

    Raises
    ------
    InputError
        if several files match one name. `what` describes them in the message.
    """
    for name in names:
        pattern = re.compile(rf"(.*[_.-])?{re.escape(name)}(\.gz)?")
        for folder in folders:
            found = sorted(path for path in folder.glob(f"*{name}*") if pattern.fullmatch(path.name))
            found = [path for path in found if not path.name.startswith(".")]  # macOS leaves a "._<name>" beside each
            # a file that exists both gzipped and unpacked counts once
            found = [path for path in found if path.with_suffix("") not in found or path.suffix != ".gz"]
            if len(found) > 1:
                raise InputError(f"{folder}: {len(found)} {what}, {found[0].name} and {found[1].name}; keep only one")
            if found:
                return found[0]
    return None


def sample(path: Path, names: list[str]) -> str:
    """The prefix before the vendor's own file name: "GSM1_" of GSM1_tissue_positions.csv."""
    length = next((path.name.index(name) for name in names if name in path.name), 0)
    return path.name[:length]


def require_one_sample(first: Path, first_names: list[str], second: Path, second_names: list[str]) -> None:
    """Refuse two files named after different samples: barcodes are the same on every slide, so they would join."""
    one, other = sample(first, first_names), sample(second, second_names)
    if not _same_sample(one, other):
        raise InputError(
            f"{first} and {second} are from two samples, judging by their names ({one} and {other}); "
            "keep the files of each section in a folder of their own"
        )


def _same_sample(one: str, other: str) -> bool:
    """Whether two prefixes agree: equal GEO accessions, else one extends the other ("P1_" and "P1_spatial_")."""
    accessions = [re.match(r"GSM\d+", name) for name in (one, other)]
    if all(accessions):
        return accessions[0][0] == accessions[1][0]
    return one.startswith(other) or other.startswith(one)
