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


def strict_json(value: object, indent: int | None = None) -> str:
    """`value` as JSON that every parser accepts: numbers that are not finite become null."""
    return json.dumps(_strict(value), allow_nan=False, ensure_ascii=False, indent=indent)


def _strict(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in cast(Sequence[Any], value)]
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
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast, where it was built in
    try:
        value = yaml.load(file.read_bytes(), Loader=loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{file} is no readable YAML ({' '.join(str(error).split())}).") from error
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def finite(value: object) -> float | None:
    if type(value) is float:  # nearly all of a study's values
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
