"""Settings of another type than their class declares, found before the class sees them."""

import inspect
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

_NAMES = {float: "a number", int: "a whole number", str: "text", bool: "true or false", types.NoneType: "null"}


def wrong_types(settings: Mapping[Any, Any], of: type[Any], where: str) -> list[str]:
    """One line for each setting that is text where the class declares a number, and the like.

    Only numbers, text, booleans, null, lists of them and choices of words are compared: the class itself validates
    everything else.

    Args:
        settings: A node of the configuration, plain.
        of: The class that it names.
        where: The node's key.
    """
    try:
        hints = get_type_hints(of.__init__)
        parameters = inspect.signature(of).parameters
    except (NameError, TypeError, ValueError, AttributeError):
        return []  # a class without annotations that can be read
    return [
        f"{where}.{key}={as_typed(value)}: must be {in_words(hints[key])}."
        for key, value in settings.items()
        if key in parameters and key in hints and not _fits(value, hints[key])
    ]


def in_words(hint: Any) -> str:
    """What a value of the type is called in a message, such as "a whole number or null"."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(in_words(part) for part in get_args(hint))
    if origin is Literal:
        return " or ".join(map(str, get_args(hint)))
    if origin in (list, Sequence):
        return f"a list, each {in_words(get_args(hint)[0])}"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def as_typed(value: object) -> str:
    """The value as on a command line, quoted where it would otherwise be a number."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return repr(value) if isinstance(value, str) and not re.match(r"[A-Za-z_]", value) else str(value)


def _fits(value: Any, hint: Any) -> bool:
    """Whether the value is of the type; True for types that are not compared."""
    if isinstance(value, Mapping) and "_target_" in value:
        return True
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin in (list, Sequence) and len(get_args(hint)) == 1:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in cast(list[Any], value))
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return hint not in _NAMES or isinstance(value, hint)
