"""Plain values in files: strict JSON out, and JSON and YAML back in with little taken on trust."""

import json
import math
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

#: Files larger than this were not written by us as records; they are reported, not read.
LARGEST_RECORD = 16 * 2**20

#: How deep a configuration may be nested.
DEEPEST = 100


#: Levels of maps and lists that are written: a record of ours has five.
_DEEPEST_JSON = 100


def strict_json(value: object, indent: int | None = None) -> str:
    """`value` as JSON that every parser accepts: not-finite numbers, and what is nested too deep, become null."""
    return json.dumps(_strict(value), allow_nan=False, ensure_ascii=False, indent=indent)


def _strict(value: object, depth: int = 0) -> object:
    if depth > _DEEPEST_JSON:
        return None
    if isinstance(value, Mapping):
        return {str(key): _strict(item, depth + 1) for key, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_strict(item, depth + 1) for item in cast(Sequence[Any], value)]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"{value!r} of type {type(value).__name__} is no JSON value: pass numbers, text, lists and maps.")


def read_json(file: Path) -> dict[str, Any] | None:
    try:
        return parse_json(file.read_bytes()) if file.stat().st_size <= LARGEST_RECORD else None
    except OSError:
        return None


def parse_json(text: bytes) -> dict[str, Any] | None:
    try:
        value = _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        return None
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


def _not_a_number(_: str) -> None:
    """NaN and Infinity are no JSON; a file that has them nevertheless is read as if it had null."""


_DECODER = json.JSONDecoder(parse_constant=_not_a_number)


def read_yaml(file: Path) -> dict[str, Any]:
    """The map in `file`.

    Raises:
        ValueError: It is no YAML of plain values, or such as no configuration is: it would take for ever to read.
        OSError: It cannot be opened.
    """
    text = file.read_bytes()
    try:
        _refuse_bombs(text)
        value = yaml.load(text, Loader=_LOADER)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:  # "2020-99-99" is a ValueError
        raise ValueError(f"{file} is no readable YAML ({' '.join(str(error).split())}).") from error
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast, where it was built in


def _refuse_bombs(text: bytes) -> None:
    """Few bytes can be nested until libyaml overflows the stack, or name each other until nothing can print them."""
    if len(text) > LARGEST_RECORD:
        raise ValueError(f"{len(text)} bytes")
    depth = 0
    for event in cast(Any, yaml).parse(text, Loader=_LOADER):  # a flat stream: nothing is built yet
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an alias, which no configuration of ours has")
        if isinstance(event, yaml.ScalarEvent) and _is_endless(event):
            raise ValueError("a number of more than 1000 characters")


def _is_endless(event: Any) -> bool:
    """1:1:1:... is a number of base 60, and takes the square of its length."""
    return len(event.value) > 1000 and event.implicit[0] and event.value[0] in "+-0123456789"


def finite(value: object) -> float | None:
    if type(value) is float:  # nearly all of a study's values
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
