"""A class given by its path where a group takes a choice: `target=mine.ImageMinusNoise`."""

import copy
import inspect
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.utils import get_object
from omegaconf import DictConfig

from diffexp.apps.config import did_you_mean


@contextmanager
def classes_as_choices(group: str, argv: Sequence[str]) -> Generator[None]:
    """Makes every `group=module.Class` among the arguments a choice of the group, with the class's plain defaults."""
    store = ConfigStore.instance()
    before = copy.deepcopy(store.repo)
    for path in [word.removeprefix(f"{group}=") for word in argv if word.startswith(f"{group}=")]:
        if "." in path.strip("."):
            store.store(group=group, name=path, node={"_target_": path, **_defaults(path)}, provider="command line")
    try:
        yield
    finally:
        store.repo = before


def _defaults(path: str) -> dict[str, Any]:
    """Arguments that a command line can set; none where there is no such class, which is told later."""
    try:
        arguments = inspect.signature(get_object(path)).parameters.values()
    except Exception:
        return {}
    return {each.name: each.default for each in arguments if isinstance(each.default, bool | int | float | str)}


def refuse_other_classes(group: str, node: DictConfig, wanted: type, method: str) -> None:
    """Refuse a node that does not name a whole subclass of `wanted`.

    Args:
        group: The group's name.
        node: What was chosen.
        wanted: The base class.
        method: What a subclass must have, for the message.

    Raises:
        ValueError: Nothing like it can be imported, it is something else, or it lacks a method.
    """
    path, base = str(node.get("_target_")), wanted.__name__
    start = f"{group}={path}"
    found = _imported(start, path)
    if not inspect.isclass(found) or not issubclass(found, wanted):
        kind = "a class, but not" if inspect.isclass(found) else f"a {type(found).__name__} and not"
        raise ValueError(
            f"{start}: that is {kind} a {base}. Write class {path.rpartition('.')[2]}({base}) with a method {method}, "
            f"and from {wanted.__module__} import {base}."
        )
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ValueError(f"{start}: the class has no method {' or '.join(missing)}. Write def {method}.")


def _imported(start: str, path: str) -> object:
    try:
        return get_object(path)
    except Exception as error:
        cause = error.__cause__ or error
        module, _, name = path.rpartition(".")
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{path}.".startswith(f"{cause.name}."):
            if cause.name == path:
                there = [word for word in vars(get_object(module)) if not word.startswith("_")]
                said = f"there is no {name} in {module}.{did_you_mean(name, there)}"
            else:
                said = f"there is no module {cause.name} in the current folder or among the installed ones."
        else:
            line = _line(cause)
            said = f"importing it fails: {type(cause).__name__}: {str(cause).partition(chr(10))[0]}{line}"
        raise ValueError(f"{start}: {said}") from error


def _line(error: BaseException) -> str:
    """Where in the person's file, " (mine.py, line 3)"; a SyntaxError says so itself."""
    traceback = error.__traceback__
    if traceback is None or isinstance(error, SyntaxError):
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f" ({traceback.tb_frame.f_code.co_filename.rpartition('/')[2]}, line {traceback.tb_lineno})"
