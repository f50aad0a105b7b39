"""Mutations that keep a file parseable: a value of its JSON, YAML or table is replaced, duplicated, moved or removed.

libFuzzer mutates bytes, which rarely gets past a parser; these mutations nearly always do.
"""

import copy
import json
import random
import re

import yaml

# unexpected values
ODD = [
    None, True, False, 0, -1, 1, 2, 0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), 2**31, 2**63, 10**400,
    "", " ", "nan", "NA", "1", "0", "1.0", "1e999", "0x1", "١", "-", "#", "(", "a/b", "../x", "\0", "\r", "a\rb", "\n",
    "\t", '"', "\ud800", "\ufeff", "\u2028", "ß", "İ", "x" * 300, "cell0", "A1", "tumor", "invasive\rcancer",
    "[0, 0, 4]", "index == 0", "section.str.contains('(')", "!!int ''", [], [[]], [1, 2], ["a", "a"], {}, {"name": 5},
    {"": None},
]  # fmt: skip
SEPARATORS = ("\t", ",", ";")


def change(content: bytes, rng: random.Random) -> bytes:
    """The content after one to three changes of its values."""
    for read, write in ((json.loads, json.dumps), (_from_yaml, _to_yaml)):
        try:
            values = read(content.decode("utf-8-sig"))
            if not isinstance(values, (dict, list)):
                continue
            root = [values]
            for _ in range(rng.randint(1, 3)):
                _change_one(root, rng)
            return write(root[0]).encode()
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError, yaml.YAMLError):
            continue
    return _change_table(content, rng)


def _from_yaml(text: str):
    # no aliases: a list may contain itself
    return None if "*" in text else yaml.safe_load(text)


def _to_yaml(values) -> str:
    return yaml.safe_dump(values, sort_keys=False)


def _change_one(root: list, rng: random.Random) -> None:
    places = list(_places(root))
    holder, key = rng.choice(places)
    what = rng.randrange(4)
    if what == 0 or holder is root:
        holder[key] = copy.deepcopy(rng.choice(ODD))
    elif what == 1:
        other, place = rng.choice(places)
        holder[key] = copy.deepcopy(other[place])
    elif what == 2:
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[str(rng.choice(ODD))] = holder.pop(key)


def _places(root: list):
    """(mapping or list, key or index) of every value."""
    pending = [root]
    while pending:
        holder = pending.pop()
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            yield holder, key
            if isinstance(value, (dict, list)):
                pending.append(value)


def _change_table(content: bytes, rng: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    separator = max(SEPARATORS, key=text.count)
    rows = [line.split(separator) for line in re.split(r"\r?\n", text)]
    for _ in range(rng.randint(1, 3)):
        row = rng.choice(rows)
        cell = rng.randrange(len(row) + 1)
        what = rng.randrange(5)
        if what == 0:
            row[cell : cell + 1] = [str(rng.choice(ODD))]
        elif what == 1:
            row[cell : cell + 1] = [rng.choice(rng.choice(rows) or [""])]
        elif what == 2:
            row[cell : cell + rng.randrange(2)] = [""] * rng.randrange(3)
        elif what == 3:
            rows.insert(rng.randrange(len(rows) + 1), list(row))
        else:
            rows.remove(row)
            rows = rows or [[""]]
    return rng.choice(["\n", "\n", "\r\n"]).join(map(separator.join, rows)).encode("utf-8", "replace")
