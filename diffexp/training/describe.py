"""A setup's objects as plain values: `{"_target_": "diffexp.targets.V"}` and the like, as conf/ has them."""

import dataclasses
import functools
import importlib
from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from diffexp.errors import UserError


def describe(part: object, where: str) -> dict[str, Any]:
    """The node that makes an equal object.

    Args:
        part: A dataclass of ours or a person's own (targets, schedules, data sources, samplers, ...), or a class or a
            functools.partial of one (networks, optimisers).
        where: What it is, for messages.

    Raises:
        UserError: It is made of something that no other program could make again.
    """
    if isinstance(part, functools.partial):
        call = cast("functools.partial[Any]", part)
        if call.args:
            raise UserError(f"{where}: give the arguments of the functools.partial by name, not by position.")
        node = {"_target_": _path(call.func, where)}
        return node | {key: _plain(value, f"{where}.{key}") for key, value in call.keywords.items()}
    if isinstance(part, type):
        return {"_target_": _path(part, where)}
    if dataclasses.is_dataclass(part):
        fields = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.init}
        return {"_target_": _path(type(part), where)} | {
            key: _plain(value, f"{where}.{key}") for key, value in fields.items()
        }
    if not isinstance(part, nn.Module) and type(part).__init__ is object.__init__:
        return {"_target_": _path(type(part), where)}
    raise UserError(
        f"{where}: {part!r} cannot be written down, so the run could not be loaded again. Give a dataclass, a class or "
        "functools.partial(CLASS, key=value)."
    )


def _plain(value: object, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = cast("list[object] | tuple[object, ...]", value)
        return [_plain(item, f"{where}.{place}") for place, item in enumerate(items)]
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in cast(Mapping[Any, Any], value).items()}
    return describe(value, where)


def _path(found: Any, where: str) -> str:
    """`module.Class`, if that is where it can be found."""
    module, name = getattr(found, "__module__", ""), getattr(found, "__qualname__", "")
    there = getattr(importlib.import_module(module), name, None) if module and "<" not in name else None
    if there is not found:
        raise UserError(
            f"{where}: {name or found!r} is no class or function at the top level of a module, so the run could not be "
            "loaded again. Define it there."
        )
    # the module of torch.optim.AdamW is torch.optim.adamw; conf/ names the public place.
    public = module.rpartition(".")[0]
    if public and getattr(importlib.import_module(public), name, None) is found:
        module = public
    return f"{module}.{name}"
