"""Fuzz one reader until it neither fulfils its contract nor raises an InputError.

    python tests/fuzz/fuzz.py TARGET FOLDER [options of libFuzzer]

The targets are those of targets.py. FOLDER gets the current input, inputs that reached new code (corpus/), and a
failing input (crash-*, timeout-*, oom-*), which should be added to found/TARGET/.
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
    """Never returns, as libFuzzer ends the process."""
    folder = Path(folder).resolve()
    path = folder / "input"
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # paths in a sheet are relative to this folder
    logging.disable()
    given = [f"-dict={HERE / 'words' / target}", "-print_final_stats=1", *options, corpus, HERE / "seeds" / target]

    def look(content: bytes) -> None:
        path.write_bytes(content)
        targets.read(target, path)

    def mutate(content: bytes, longest: int, seed: int) -> bytes:
        """Mutate bytes or values, with equal probability."""
        rng = random.Random(seed)
        changed = content if rng.random() < 0.5 else change(content, rng)[:longest]
        return atheris.Mutate(content, longest) if changed == content else changed

    atheris.Setup([sys.argv[0], *map(str, given)], look, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
