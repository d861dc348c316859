"""A class given by its path where a group takes a choice: `target=mine.ImageMinusNoise`."""

import importlib
import inspect
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig

from diffexp.cli.config import did_you_mean
from diffexp.cli.constructors import line_of


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
    """The arguments that a command line can set; none where there is no such class, which is told later."""
    try:
        arguments = inspect.signature(_located(path)).parameters.values()
    except Exception:
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
        ValueError: Nothing like it can be imported, it is something else, or it lacks a method.
    """
    path, base = str(node.get("_target_")), wanted.__name__
    typed = HydraConfig.get().runtime.choices[group]
    start = f"{group}={path}" if typed == path else f"{group}={typed} (_target_: {path})"
    found = _imported(start, path)
    if not inspect.isclass(found) or not issubclass(found, wanted):
        kind = "a class, but not" if inspect.isclass(found) else f"a {type(found).__name__} and not"
        raise ValueError(
            f"{start}: that is {kind} a {base}. Write class {path.rpartition('.')[2]}({base}) with a method {method}, "
            f"and from {wanted.__module__} import {base}."
        )
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ValueError(f"{start}: the class has no method {' or '.join(missing)}. Write def {method}.")


def _imported(start: str, path: str) -> Any:
    module = path.rpartition(".")[0]
    try:
        return _located(path)
    except ModuleNotFoundError as error:
        if not error.name or not f"{path}.".startswith(f"{error.name}."):
            raise ValueError(f"{start}: importing {module} fails: {error}{line_of(error)}.") from error
        raise ValueError(
            f"{start}: there is no module {error.name} in the current folder, on PYTHONPATH or among those installed."
        ) from error
    except AttributeError as error:
        there = [word for word in dir(error.obj) if not word.startswith("_")]
        if not inspect.ismodule(error.obj) or str(error.name) not in path:
            raise ValueError(f"{start}: importing {module} fails: {error}{line_of(error)}.") from error
        raise ValueError(
            f"{start}: there is no {error.name} in {module}.{did_you_mean(str(error.name), there)}"
        ) from error
    except Exception as error:
        said = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}{line_of(error)}"
        raise ValueError(f"{start}: importing {module} fails: {said}.") from error


def _located(path: str) -> Any:
    """What the dotted path names: the longest part of it that is a module, then attributes."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if cut > 1 and error.name == name:
                continue
            raise
        return attrgetter(".".join(parts[cut:]))(module)
    raise ModuleNotFoundError(f"No module named {path!r}", name=path)
