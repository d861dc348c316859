"""Settings of another type than their class says, found before the class sees them."""

import inspect
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints


def refuse_other_types(settings: Mapping[Any, Any], of: type[Any], where: str) -> None:
    """Refuse a text where the class takes a number, and the like.

    Only plain types are looked at (numbers, text, true and false, null, lists of them, a choice of words): a class
    answers for all others itself.

    Args:
        settings: A node of the configuration, plain.
        of: The class that it names.
        where: The node's key.

    Raises:
        ValueError: Names the setting as typed, and what it may be.
    """
    try:
        hints = get_type_hints(of.__init__)
        parameters = inspect.signature(of).parameters
    except (NameError, TypeError, ValueError, AttributeError):
        return  # a class without annotations that can be read
    wrong = [
        f"{where}.{key}={_typed(value)}: must be {_words(hints[key])}."
        for key, value in settings.items()
        if key in parameters and key in hints and not _fits(value, hints[key])
    ]
    if wrong:
        raise ValueError("\n".join(wrong))


def _fits(value: object, hint: Any) -> bool:
    """Whether the value is of the type, or the type is none that can be told."""
    if _names_a_class(value):
        return True
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin in (list, Sequence) and len(get_args(hint)) == 1:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in cast(list[Any], value))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool, types.NoneType):
        return isinstance(value, hint)
    return True


def _names_a_class(value: object) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


_NAMES = {float: "a number", int: "a whole number", str: "text", bool: "true or false", types.NoneType: "null"}


def _words(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(part) for part in get_args(hint))
    if origin is Literal:
        return " or ".join(map(str, get_args(hint)))
    if origin in (list, Sequence):
        return f"a list, each {_words(get_args(hint)[0])}"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def _typed(value: object) -> str:
    words = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
    return "null" if words is None else repr(words) if isinstance(words, str) else str(words)
