"""Fuzz one reader until something other than its contract or an InputError comes of it.

    python tests/fuzz/fuzz.py TARGET FOLDER [options of libFuzzer]

The targets are those of targets.py. FOLDER takes what is written: the file that is read, what reached new code
(corpus/), and the input that failed (crash-*, timeout-*, oom-*), which belongs into found/TARGET/.
"""

import logging
import os
import random
import sys
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "scripts")]

with atheris.instrument_imports(include=["ctrflow", "yaml"]):
    import targets
    from changes import change


def main(target: str, folder: str, options: list[str]) -> None:
    """Never returns: libFuzzer ends the process."""
    folder = Path(folder).resolve()
    path = folder / "input"
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # a path in a sheet is looked for here
    logging.disable()
    given = [f"-dict={HERE / 'words' / target}", "-print_final_stats=1", *options, corpus, HERE / "seeds" / target]

    def look(content: bytes) -> None:
        path.write_bytes(content)
        targets.read(target, path)

    def mutate(content: bytes, longest: int, seed: int) -> bytes:
        """Bytes or values, by turns."""
        rng = random.Random(seed)
        changed = content if rng.random() < 0.5 else change(content, rng)[:longest]
        return atheris.Mutate(content, longest) if changed == content else changed

    atheris.Setup([sys.argv[0], *map(str, given)], look, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
