"""Plain values in files: strict JSON out, and JSON (or the YAML of 0.1) back in with little taken on trust."""

import json
import math
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from diffexp.errors import UserError

#: Files larger than this were not written by us as records; they are reported, not read.
LARGEST_RECORD = 16 * 2**20

#: A configuration has some 3,000 bytes.
_LARGEST_YAML = 64 * 2**10


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
    """The map in `file`, a configuration of diffexp 0.1, which wrote no config.json.

    Raises:
        UserError: It is larger than any configuration, or no YAML of plain values without aliases.
        OSError: It cannot be opened.
    """
    try:
        if file.stat().st_size > _LARGEST_YAML:
            raise ValueError(f"{file.stat().st_size:,} bytes")
        text = strict_json(yaml.load(file.read_bytes(), Loader=_WithoutAliases))
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{file} is no readable YAML ({' '.join(str(error).split())}).") from error
    return parse_json(text.encode()) or {}


class _WithoutAliases(yaml.SafeLoader):
    """Few bytes can name each other until nothing can print them; no configuration of ours has aliases.

    In Python, unlike libyaml, so that deep nesting is a RecursionError and not an overflow of the stack.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if cast(Any, self).check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias")
        return super().compose_node(parent, index)


def finite(value: object) -> float | None:
    if type(value) is float:  # nearly all of a study's values
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
