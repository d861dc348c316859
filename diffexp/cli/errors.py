"""Which errors are a person's input, and what to print about them; everything else is a bug and keeps its traceback."""

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffexp.errors import UserError, did_you_mean, nearest
from diffexp.training.instantiate import locate, prefix_with_key

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, OSError)


class AlreadyReported(Exception):
    """A task failed, and its message has been printed."""


def raise_in_full(error: BaseException) -> None:
    """Raises the error itself, with its traceback, where HYDRA_FULL_ERROR=1 is set."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise error


def user_message(error: BaseException) -> str | None:
    """The message of an error that is about a person's input; None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} must be given: it has no default."
    if isinstance(error, OmegaConfBaseException):  # a value that refers to nothing, a key that was taken out with ~
        return f"{error.full_key or 'the configuration'}: {str(error).partition(chr(10))[0]}"
    if isinstance(error, InstantiationException):  # of a node that Hydra builds itself: a launcher, a sweeper
        cause, where = error.__cause__, str(error).rpartition("full_key: ")[2]
        if cause is None or isinstance(cause, ValueError | TypeError | ImportError):
            return prefix_with_key(where, str(cause or error))
    return None


def composition_message(error: Exception, overrides: Sequence[str], compose: Callable[[list[str]], DictConfig]) -> str:
    """What is wrong with overrides that Hydra cannot compose, and what to use instead.

    Args:
        error: What composing them raised.
        overrides: As on the command line, or as a sweep made them.
        compose: Composes other overrides, to find what there is.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        return _unknown_choice(error.missing_cfg_file, error.options, overrides)
    if one_of_several := re.match(r"In '[^']+': Could not load '(.+)/([^/']+)'", str(error)):
        group, name = one_of_several.groups()
        there = GlobalHydra.instance().config_loader().get_group_options(group)
        wrong = f"{group}=[...,{name}]: there is no {name} in {group}.{did_you_mean(name, there)}"
        return f"{wrong} Choices: {', '.join(there)}."
    if sweep := re.match(r"Ambiguous value for argument '(.+)'\n", str(error)):
        return _sweep_without_flag(sweep[1])
    if unknown := re.match(r"Could not override '([^']+)'", str(error)):
        return _unknown_key(unknown[1], overrides, compose)
    return "\n".join(text for each in (error, error.__cause__) if each and (text := str(each).strip()))


def _unreadable(error: OverrideParseException) -> str:
    if "=" not in error.override and not error.override.startswith("~"):
        return f"{error.override}: an override is written key=value, such as experiment=quick or seed=0."
    reason = error.message.partition("\n")[0]
    return (
        f"{error.override}: Hydra cannot read this ({reason}). A value with special characters needs quotes "
        "of its own inside those of the shell: 'key=\"a, b (c)\"'."
    )


def _sweep_without_flag(typed: str) -> str:
    key, _, values = typed.partition("=")
    return (
        f"{typed}: several values make a sweep: add -m to run one job for each. "
        f"If they are one value, type a list as '{key}=[{values}]', or quote it: '{key}=\"{values}\"'."
    )


def _unknown_choice(path: str, options: Sequence[str], overrides: Sequence[str]) -> str:
    group, _, name = path.rpartition("/")
    typed = next((o for o in overrides if o.lstrip("+") == f"{group}={name}"), None)
    start = typed or f"{group}: {name}, in a configuration file"
    there = f"Choices: {', '.join(options)}." if options else "It has no choices at all."
    wrong = f"there is no {name} in {group}.{did_you_mean(name, options)}" if name else "nothing follows the = sign."
    return f"{start}: {wrong} {there}"


def _unknown_key(key: str, overrides: Sequence[str], compose: Callable[[list[str]], DictConfig]) -> str:
    parser = OverridesParser.create()
    typed = next((o for o in overrides if parser.parse_override(o).key_or_group == key), key)
    config: DictConfig | None = None
    for others in ([o for o in overrides if parser.parse_override(o).key_or_group != key], []):
        try:
            config = compose(others)
            break
        except COMPOSITION_ERRORS:
            continue  # another override is wrong too: this one is reported first
    wrong = f"{typed}: there is no key {key}."
    if config is None:
        return wrong
    if key.startswith("hydra."):
        return f"{wrong} To add a new key, type +{typed}"
    if (beside := _beside(typed, key, config)) is not None:
        return wrong + beside
    return wrong + did_you_mean(key, _keys(_plain(config)))


def _beside(typed: str, key: str, config: DictConfig) -> str | None:
    """What to type instead, from the node that the key was meant for; None where there is no such node.

    A new key is worth adding only where the node's class takes it: nothing else would ever read it.
    """
    above, _, name = key.rpartition(".")
    node: Any = OmegaConf.select(config, above) if above else config
    if not isinstance(node, DictConfig):
        return None
    there = sorted(str(k) for k in node if k != "hydra" and not str(k).startswith("_"))
    taken: list[str] = []
    if target := node.get("_target_"):
        try:
            found = cast(Callable[..., Any], locate(str(target), ""))
            taken = [k for k in inspect.signature(found).parameters if k not in there]
        except (UserError, TypeError, ValueError):
            taken = []  # reported when it is built
    if name in taken:
        return f" To pass a further argument to {target}, type +{typed}"
    if near := nearest(name, [*there, *taken] if above else _keys(_plain(config))):
        return f" Did you mean {'+' if near in taken else ''}{above}{'.' if above else ''}{near}?"
    if not there:
        return f" {above} takes no settings."
    return f" Keys of {above}: {', '.join(there)}." if above else f" Keys: {', '.join(there)}."


def _plain(config: DictConfig) -> Mapping[object, object]:
    return cast(Mapping[object, object], OmegaConf.to_container(config))


def _keys(node: Mapping[object, object], above: str = "") -> Iterator[str]:
    """Every key of the configuration with its dots, inner nodes included."""
    for name, value in node.items():
        yield f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _keys(cast(Mapping[object, object], value), f"{above}{name}.")
