"""Validate configuration and study files against their JSON Schemas: all problems at once, each with a cure."""

import difflib
import re
from pathlib import Path

import yaml

from ctrflow.errors import InputError
from ctrflow.logs import TOKEN

SURROGATE = re.compile(r"[\ud800-\udfff]")
MAX_VALUES, MAX_DEPTH = 100_000, 30  # the largest of our own files has 600 values, 6 deep


def read_yaml(path: str | Path) -> dict:
    """A YAML mapping.

    Raises
    ------
    InputError
        for a missing file, invalid YAML (with row and column), or content that is not a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        content = _UniqueKeys(path.read_text(encoding="utf-8")).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise InputError(
            f"{path}, row {mark.line + 1}, column {mark.column + 1}: not valid YAML ({error.problem}); "
            "write `key: value`, indent with spaces (not tabs), close brackets and quotes"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML ({error}); save it as UTF-8 text") from error
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        # a 13th month, `!!int ""`, too deeply nested brackets
        raise InputError(f"{path}: a value that cannot be read ({error}); put text into quotes") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected `key: value` lines")
    if "__use_yte__" in content:
        raise InputError(f"{path}: `__use_yte__` makes Snakemake run code from this file; delete that line")
    return content


class _UniqueKeys(yaml.SafeLoader):
    """A loader that rejects duplicate keys, of which YAML's own silently keeps the last, and lone surrogates."""

    def construct_scalar(self, node):
        value = super().construct_scalar(node)
        if SURROGATE.search(value):
            problem = "half a character (a lone UTF-16 surrogate)"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return value

    def construct_mapping(self, node, deep=False):
        first = {}
        for key, _ in node.value:
            row = first.setdefault(key.value, key.start_mark.line) if isinstance(key, yaml.ScalarNode) else None
            if row not in (None, key.start_mark.line) and key.value != "<<":
                problem = f"`{key.value}` is already at row {row + 1}; keep one"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


def check(content: dict, schema: dict, name: str) -> dict:
    """Validate `content` and return it with the schema's defaults filled in.

    Raises
    ------
    InputError
        listing all problems, each with its key; unknown keys with the closest known one.
    """
    import jsonschema

    _require_few_and_no_token(content, name)
    problems = sorted(
        line
        for error in jsonschema.Draft202012Validator(schema).iter_errors(content)
        for line in _lines(error, content)
    )
    if problems:
        raise InputError(f"{name}: {len(problems)} problem{'s' * (len(problems) > 1)}:\n  " + "\n  ".join(problems))
    return _with_defaults(content, schema)


def _require_few_and_no_token(content: dict, name: str) -> None:
    """Reject content too large for an error message, and tokens, which a message would repeat."""
    pending, seen = [((), content)], 0
    while pending:
        place, value = pending.pop()
        seen += 1
        if seen > MAX_VALUES or len(place) > MAX_DEPTH:
            raise InputError(
                f"{name}: more than {MAX_VALUES:,} values, or nested more than {MAX_DEPTH} deep; replace aliases of "
                "aliases (*name) by their values"
            )
        if isinstance(value, dict):
            pending += [((*place, str(key)), inside) for key, inside in value.items()]
        elif isinstance(value, list):
            pending += [((*place, str(number)), inside) for number, inside in enumerate(value)]
        where = ".".join(place)
        if TOKEN.search(f"{where} {value}" if isinstance(value, str) else where):
            raise InputError(
                f"{name}: {TOKEN.sub('hf_***', where)}: looks like a Hugging Face token; delete it here, create a new "
                "one if others may have seen it, and set it in the environment variable HF_TOKEN"
            )


def _lines(error, content) -> list[str]:
    where = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = [key for key in error.instance if key not in known]
        return [_unknown_key(f"{where}.{key}" if where else str(key), key, known) for key in unknown]
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return [f"{where + '.' if where else ''}{key}: missing" for key in missing]
    if error.validator == "oneOf":
        # only the alternative of the right type explains the problem
        causes = [cause for cause in error.context if cause.relative_path or cause.validator != "type"]
        if causes:
            return [line for cause in causes for line in _lines(cause, content)]
        return [f"{where}: {error.instance!r} is not {error.schema['description']}"]
    described = error.schema.get("description", "")
    if error.validator == "not":
        taken = ", ".join(error.validator_value["enum"])
        return [f"{where}: {error.instance!r} is a reserved name ({taken}); choose another"]
    return [f"{where}: {error.message}" + (f" ({described})" if described else "")]


def _unknown_key(where: str, key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(str(key), known, n=1)
    hint = f"did you mean `{close[0]}`? " if close else ""
    return f"{where}: unknown key; {hint}known: {', '.join(sorted(known))}"


def _with_defaults(content, schema: dict):
    if not isinstance(content, dict):
        if isinstance(content, list) and "items" in schema:
            return [_with_defaults(item, schema["items"]) for item in content]
        return content
    properties = schema.get("properties", {})
    filled = {key: rule["default"] for key, rule in properties.items() if "default" in rule} | content
    return {key: _with_defaults(value, properties.get(key, {})) for key, value in filled.items()}
