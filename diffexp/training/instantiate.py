"""From a node of a configuration, plain values, to the object that it describes."""

import importlib
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar, cast

from diffexp.errors import UserError

T = TypeVar("T")


def build_object(node: Mapping[str, Any], kind: type[T], where: str, **kwargs: Any) -> T:
    settings = {
        key: build_object(value, object, f"{where}.{key}")
        if isinstance(value, Mapping) and "_target_" in value
        else value
        for key, value in node.items()
        if not key.startswith("_")
    }
    module, _, name = str(node["_target_"]).rpartition(".")
    found = getattr(importlib.import_module(module), name)
    if not issubclass(found, kind):
        raise UserError(f"{where}._target_={node['_target_']}: this must name a {kind.__name__}.")
    return cast(T, partial(found, **settings) if node.get("_partial_") else found(**settings, **kwargs))
