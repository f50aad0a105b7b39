"""Watches the steps of a run: the CPU seconds of each, and those that its start and its imports took.

Python imports a module of this name at its start, where this folder is in PYTHONPATH.
"""

import atexit
import builtins
import json
import os
import sys
import time
from pathlib import Path

original, outermost, imports_s = builtins.__import__, True, time.process_time()


def timed(*args, **kwargs):
    """`import`, with its CPU seconds added to `imports_s` unless another import does so."""
    global outermost, imports_s
    if not outermost:
        return original(*args, **kwargs)
    outermost, start_s = False, time.process_time()
    try:
        return original(*args, **kwargs)
    finally:
        outermost = True
        imports_s += time.process_time() - start_s


def write(step: str) -> None:
    """A file for this process, in the folder that the run was given."""
    content = {"step": step, "cpu_s": time.process_time(), "start_s": imports_s}
    Path(os.environ["CTRFLOW_WATCHED"], f"{os.getpid()}.json").write_text(json.dumps(content))


scripts = [argument for argument in sys.orig_argv if ".snakemake/scripts/" in argument]
if scripts and "CTRFLOW_WATCHED" in os.environ:
    builtins.__import__ = timed
    atexit.register(write, Path(scripts[-1]).name.split(".")[-2])
