"""Telling a person's mistake from the program's, and saying it in one message.

A mistake is what a `raise` in this package says about what was typed, or what Hydra cannot compose.
Everything else is a bug, and keeps its traceback.
"""

import dis
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import cast

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffexp.apps.config import did_you_mean

_OURS = ("diffexp", "hydra_plugins")

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, OSError)


def raise_in_full(error: BaseException) -> None:
    """Raises the error itself, with its traceback, where HYDRA_FULL_ERROR=1 asks for that."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise error


def task_mistake(error: BaseException) -> str | None:
    """What a person did wrong, if that is what this error of a task says, else None."""
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} must be given: it has no default."
    if isinstance(error, InstantiationException):
        return _instantiation_mistake(error)
    if isinstance(error, ValueError | OSError | ImportError) and _raised_by_us(error.__traceback__):
        return str(error)
    return None


def composition_mistake(error: Exception, overrides: Sequence[str], compose: Callable[[list[str]], DictConfig]) -> str:
    """What was wrong with the overrides that Hydra could not compose, and what would do.

    Args:
        error: What composing them raised.
        overrides: As typed, or as a sweep made them.
        compose: Composes other overrides, to find what there is.
    """
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        return _unknown_choice(error.missing_cfg_file, error.options, overrides)
    if unknown := re.match(r"Could not override '([^']+)'", str(error)):
        return _unknown_key(unknown[1], overrides, compose)
    return "\n".join(text for each in (error, error.__cause__) if each and (text := str(each).strip()))


def _raised_by_us(traceback: TracebackType | None) -> bool:
    """Whether the error comes from a `raise` statement of this package, and not from what it called."""
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    frame = traceback.tb_frame
    ours = str(frame.f_globals.get("__name__", "")).partition(".")[0] in _OURS
    return ours and dis.opname[frame.f_code.co_code[traceback.tb_lasti]] == "RAISE_VARARGS"


def _instantiation_mistake(error: InstantiationException) -> str | None:
    cause = error.__cause__
    if cause is None:  # Hydra's own words about the node
        return str(error)
    first, _, rest = str(error).partition("\n")
    where = rest.rpartition("full_key: ")[2] if "full_key: " in rest else "the configuration"
    if first.startswith("Error locating target"):
        return f"{where}._target_: {str(cause).replace(chr(10), ' ')}"
    if isinstance(cause, TypeError) and cause.__traceback__ and cause.__traceback__.tb_next is None:
        return f"{where}: {cause}"  # the call itself was refused: a wrong or missing argument
    return task_mistake(cause)


def _unreadable(error: OverrideParseException) -> str:
    if "=" not in error.override and not error.override.startswith("~"):
        return f"{error.override}: an override is written key=value, such as experiment=quick or seed=0."
    reason = error.message.partition("\n")[0]
    return (
        f"{error.override}: Hydra cannot read this ({reason}). A value with special characters needs quotes "
        "of its own inside those of the shell: 'key=\"a, b (c)\"'."
    )


def _unknown_choice(path: str, options: Sequence[str], overrides: Sequence[str]) -> str:
    group, _, name = path.rpartition("/")
    typed = next((o for o in overrides if o.lstrip("+") == f"{group}={name}"), None)
    start = typed or f"{group}: {name}, in a configuration file"
    there = f"Choices: {', '.join(options)}." if options else "It has no choices at all."
    return f"{start}: there is no {name} in {group}.{did_you_mean(name, options)} {there}"


def _unknown_key(key: str, overrides: Sequence[str], compose: Callable[[list[str]], DictConfig]) -> str:
    parser = OverridesParser.create()
    typed = next((o for o in overrides if parser.parse_override(o).key_or_group == key), key)
    known: list[str] = []
    for others in ([o for o in overrides if parser.parse_override(o).key_or_group != key], []):
        try:
            known = list(_keys(cast(Mapping[object, object], OmegaConf.to_container(compose(others)))))
            break
        except COMPOSITION_ERRORS:
            continue  # another override is wrong too: this one is reported first
    return f"{typed}: there is no key {key}.{did_you_mean(key, known)} To add a new key, type +{typed}"


def _keys(node: Mapping[object, object], above: str = "") -> Iterator[str]:
    """Every key of the configuration with its dots, inner nodes included."""
    for name, value in node.items():
        yield f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _keys(cast(Mapping[object, object], value), f"{above}{name}.")
