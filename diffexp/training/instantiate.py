"""What `_target_` names, built only where it is a class of the kind that belongs there.

A run's configuration may come from a stranger, and `_target_: os.system` would call that. So every name in a node is
looked up first, and nothing is called unless all of them are classes of the right kind. The constructor is called in
one place, where what it raises becomes a message that names the node's key.
"""

import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar, cast

from diffexp.errors import UserError, did_you_mean
from diffexp.training.setting_types import wrong_types

T = TypeVar("T")

#: The command line's settings, such as `optimizer.lr=-1`, for messages that show what was set.
overrides: ContextVar[Sequence[str]] = ContextVar("overrides", default=())

#: What the program itself passes to a class, beside the settings of its node.
_CALLED = {
    "network": "It is called as network(image_shape=, schedule=, data_std=, **its own settings); "
    "what it returns as forward(x_t, t).",
    "optimizer": "It is called as optimizer(parameters, **its own settings).",
}


def build_object(node: Mapping[str, Any], kind: type[T], where: str, *args: Any, **kwargs: Any) -> T:
    """What the node describes.

    Args:
        node: A class by `_target_` and its arguments, plain values.
        kind: What the class must extend.
        where: The node's key, for messages.
        args: What the program passes before the node's arguments.
        kwargs: What the program passes beside the node's arguments, and in their place.

    Raises:
        UserError: The node, or one inside it, does not name a class of the right kind, or the class does not take its
            arguments.
    """
    validate_classes(node, kind, where)
    settings = dict(node)
    if args or kwargs:
        settings.pop("_partial_", None)  # this is that deferred call
    made = _made(settings, where, *args, **kwargs)
    if not isinstance(made, kind):
        raise UserError(f"{where}: {_name(kind)} was expected, and this makes a {type(made).__name__}.")
    return made


def validate_classes(node: Mapping[str, Any], kind: type[Any], where: str) -> None:
    """Require that the node, and every one inside it, names a class of the right kind; nothing is called.

    Raises:
        UserError: One names something else or nothing, or gives it a setting of another type than it declares.
    """
    if not isinstance(cast(object, node), Mapping) or not isinstance(node.get("_target_"), str):
        raise UserError(f"{where}: no class is named here. Give {where}._target_=MODULE.CLASS, {_name(kind)}.")
    found: list[tuple[Mapping[Any, Any], type[Any], str]] = []
    for key, settings in _nodes(node, where):
        name = str(settings["_target_"])
        allowed = (kind,) if key == where else _parts(kind)
        named = locate(name, f"{key}._target_={name}")
        if not (isinstance(named, type) and issubclass(named, allowed)):
            wanted = _name(kind) if key == where else "one that may be a part of another"
            what = "another class" if isinstance(named, type) else "no class"
            raise UserError(f"{key}._target_={name}: this must name {wanted}, and it is {what}.")
        for flag in ("_partial_", "_recursive_"):
            if not isinstance(settings.get(flag, False), bool):
                raise UserError(f"{key}.{flag}={settings[flag]}: must be true or false. Leave it out.")
        found.append((settings, cast(type[Any], named), key))
    if wrong := [line for settings, of, key in found for line in wrong_types(settings, of, key)]:
        raise UserError("\n".join(wrong))


def locate(path: str, start: str) -> object:
    """What the dotted path names: the longest part of it that is a module, then attributes.

    Args:
        path: Such as `mine.ImageMinusNoise`.
        start: What the message begins with: the path, as it was given.

    Raises:
        UserError: There is nothing of that name, or importing it fails.
    """
    module = path.rpartition(".")[0]
    try:
        return _imported(path)
    except ModuleNotFoundError as error:
        if not error.name or not f"{path}.".startswith(f"{error.name}."):
            raise UserError(f"{start}: importing {module} fails: {error}{line_of(error)}.") from error
        file = f"{error.name.partition('.')[0]}.py"
        folder = "." if Path(file).is_file() else f"FOLDER_OF_{file}"
        raise UserError(
            f"{start}: there is no module {error.name}. If {file} is your own, put its folder on PYTHONPATH: "
            f"PYTHONPATH={folder} diffexp ..."
        ) from error
    except AttributeError as error:
        there = [word for word in dir(error.obj) if not word.startswith("_")]
        if not inspect.ismodule(error.obj) or str(error.name) not in path:
            raise UserError(f"{start}: importing {module} fails: {error}{line_of(error)}.") from error
        raise UserError(
            f"{start}: there is no {error.name} in {error.obj.__name__}.{did_you_mean(str(error.name), there)}"
        ) from error
    except Exception as error:
        text = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}{line_of(error)}"
        raise UserError(f"{start}: importing {module} fails: {text}.") from error


def call(where: str, factory: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """`factory(*args, **kwargs)`, with what it raises as a message about the node's key.

    Raises:
        UserError: It does not take these arguments, it rejects them itself, or it comes from outside diffexp. Only what
            else a class of ours raises is a bug.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some classes written in C have none
        signature = None
    try:
        if signature:
            signature.bind(*args, **kwargs)
    except TypeError as error:
        raise UserError(
            " ".join([f"{where}: {factory.__qualname__}: {error}.", _CALLED.get(where, "")]).strip()
        ) from error
    try:
        return factory(*args, **kwargs)
    except UserError as error:
        raise UserError(prefix_with_key(where, str(error))) from error
    except Exception as error:
        if _is_ours(factory) and not isinstance(error, ValueError | TypeError | ImportError | OSError):
            raise
        raise attributed(where, factory, error) from error


def attributed(where: str, factory: Callable[..., object], error: Exception) -> UserError:
    """The error of a class that the configuration names: which one, what it raises, and where in a person's file."""
    name = f"{factory.__module__}.{factory.__qualname__}"
    line = "" if _is_ours(factory) else line_of(error)
    return UserError(
        prefix_with_key(where, f"{name} raises {type(error).__name__}: {' '.join(str(error).split())}{line}.")
    )


def prefix_with_key(where: str, text: str) -> str:
    """A class's message, which names the arguments but not their keys, with the node's key and what was set of it."""
    if f"{where}." in text or f"{where}=" in text:
        return text
    if re.match(r"\w+=", text):
        return f"{where}.{text}"
    setting = rf"\+*{re.escape(where)}\.(?!_)"
    typed = {word.partition("=")[0]: word for word in overrides.get() if re.match(setting, word)}
    return f"{' '.join(typed.values()) or where}: {text}"


def line_of(error: BaseException) -> str:
    """Where in a person's file it was raised, " (mine.py, line 3)"; a SyntaxError has that in its text."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    if len(frames) < 2 or isinstance(error, SyntaxError):
        return ""
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def _made(value: object, where: str, *args: Any, **kwargs: Any) -> Any:
    """The value with every node in it replaced by what it describes, the inner ones first."""
    if isinstance(value, list):
        return [_made(inner, f"{where}.{place}") for place, inner in enumerate(cast(list[Any], value))]
    if not isinstance(value, Mapping):
        return value
    node = {str(key): _made(inner, f"{where}.{key}") for key, inner in cast(Mapping[Any, Any], value).items()}
    if "_target_" not in node:
        return node
    name = str(node["_target_"])
    factory = cast(Callable[..., Any], locate(name, f"{where}._target_={name}"))
    args = (*args, *node.get("_args_", ()))
    kwargs = {key: inner for key, inner in node.items() if key not in _FLAGS} | kwargs
    return partial(factory, *args, **kwargs) if node.get("_partial_") else call(where, factory, *args, **kwargs)


_FLAGS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")


def _parts(kind: type[Any]) -> tuple[type[Any], ...]:
    """What may stand inside a node: inside a network, other modules of torch may too."""
    from torch import nn

    from diffexp.data.base import Source
    from diffexp.metrics.features import FeatureRecipe
    from diffexp.metrics.samples import Metric
    from diffexp.samplers import Sampler
    from diffexp.schedule import Schedule
    from diffexp.targets import Target
    from diffexp.times import Times
    from diffexp.weighting import Weighting

    parts = (Target, Schedule, Weighting, Times, Sampler, Metric, FeatureRecipe, Source)
    return (*parts, nn.Module) if issubclass(kind, nn.Module) else parts


def _is_ours(factory: Callable[..., object]) -> bool:
    return factory.__module__.partition(".")[0] == "diffexp"


def _name(kind: type[Any]) -> str:
    return f"a class that extends {kind.__module__}.{kind.__qualname__}"


def _nodes(value: object, where: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Every map with a `_target_` in the value, with its key."""
    if isinstance(value, Mapping):
        node = cast(Mapping[Any, Any], value)
        if "_target_" in node:
            yield where, node
        for key, inner in node.items():
            yield from _nodes(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for place, inner in enumerate(cast(list[Any], value)):
            yield from _nodes(inner, f"{where}.{place}")


def _imported(path: str) -> object:
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
