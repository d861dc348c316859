"""A class given by its path where a group takes a choice: `target=mine.ImageMinusNoise`."""

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig

from diffexp.errors import UserError
from diffexp.training.instantiate import locate


@contextmanager
def classes_as_choices(group: str, argv: Sequence[str]) -> Generator[None]:
    """Makes every `group=module.Class` among the arguments a choice of the group, with the class's plain defaults."""
    store = ConfigStore.instance()
    paths = [word.removeprefix(f"{group}=") for word in argv if word.startswith(f"{group}=") and "." in word.strip(".")]
    for path in paths:
        store.store(group=group, name=path, node={"_target_": path, **_defaults(path)}, provider="command line")
    try:
        yield
    finally:
        for path in paths:
            store.repo[group].pop(f"{path}.yaml", None)


def _defaults(path: str) -> dict[str, Any]:
    """The arguments that a command line can set; none where there is no such class."""
    try:
        arguments = inspect.signature(cast(Callable[..., Any], locate(path, ""))).parameters.values()
    except (UserError, TypeError, ValueError):
        return {}
    plain = {each.name: each.default for each in arguments if isinstance(each.default, bool | int | float | str)}
    return plain | {each.name: MISSING for each in arguments if each.default is each.empty and each.kind is _BY_NAME}


_BY_NAME = inspect.Parameter.POSITIONAL_OR_KEYWORD


def require_subclass(group: str, node: DictConfig, wanted: type, method: str) -> None:
    """Require that a node names a whole subclass of `wanted`.

    Args:
        group: The group's name.
        node: What was chosen.
        wanted: The base class.
        method: What a subclass must have, for the message.

    Raises:
        UserError: Nothing like it can be imported, it is something else, or it lacks a method.
    """
    path, base = str(node.get("_target_")), wanted.__name__
    typed = HydraConfig.get().runtime.choices[group]
    start = f"{group}={path}" if typed == path else f"{group}={typed} (_target_: {path})"
    found = locate(path, start)
    if not inspect.isclass(found) or not issubclass(found, wanted):
        kind = "a class, but not" if inspect.isclass(found) else f"a {type(found).__name__} and not"
        raise UserError(
            f"{start}: that is {kind} a {base}. Write class {path.rpartition('.')[2]}({base}) with a method {method}, "
            f"and from {wanted.__module__} import {base}."
        )
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise UserError(f"{start}: the class has no method {' or '.join(missing)}. Write def {method}.")
