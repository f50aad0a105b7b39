"""What is wrong with the paths that people give; Snakemake itself would end with a traceback."""

import errno
import os
import re
import stat
from pathlib import Path

UNSEEN = re.compile(r"[\x00-\x1f\x7f]")


def name_problem(path: str) -> str:
    """What is wrong with a path before anything is looked for, and its cure; "" if nothing is."""
    if "://" in path:
        return f"'{path}' is an address; download the file and give its path"
    if set("{}") & set(path):
        return f"'{path}' has braces, which stand for wildcards in Snakemake; rename it, or give a link without braces"
    if UNSEEN.search(path):
        return f"{path!r} has a line break, a tab or another control character; rename it, or give a link without"
    return ""


def file_problem(path: str, folder: bool = False) -> str:
    """What is wrong with a file, or with a folder where one can be given, and its cure; "" if nothing is."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        return f"{path} {_why_missing(path, getattr(error, 'errno', None))}"
    if stat.S_ISDIR(mode) and not folder:
        return f"{path} is a folder; give a file"
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        return f"{path} is neither a file nor a folder; correct the path"
    if not os.access(path, os.R_OK | (os.X_OK if stat.S_ISDIR(mode) else 0)):
        return f"{path} cannot be read; make it readable for you (chmod u+rX), or ask its owner"
    return ""


def _why_missing(path: str, code: int | None) -> str:
    if code == errno.EACCES:
        return "cannot be reached: one of its folders is closed to you; ask its owner (chmod u+rX)"
    if code == errno.ENOTDIR:
        return "is no path: a part before the last is a file; give the folder that holds the files"
    broken = next((one for one in (path, *map(str, Path(path).parents)) if _is_broken(one)), None)
    if broken is None:
        return "does not exist; correct the path or fetch the file"
    through = "is" if broken == path else f"leads through {broken},"
    target = "that leads back to itself" if code == errno.ELOOP else f"to {os.readlink(broken)}, which does not exist"
    return f"{through} a link {target}; mend the link, or give the path of the file itself"


def _is_broken(path: str) -> bool:
    return os.path.islink(path) and not os.path.exists(path)
