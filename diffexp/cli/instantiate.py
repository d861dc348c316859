"""What `_target_` names, built only where it is a class of the kind that belongs there.

A run's config.yaml may come from somebody else, and `_target_: os.system` would call that. So every name in a node is
looked up first, and nothing is called unless all of them are classes of the right kind.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from diffexp.cli.types import refuse_other_types
from diffexp.data.base import Source
from diffexp.metrics.features import FeatureRecipe
from diffexp.metrics.samples import Metric
from diffexp.samplers import Sampler
from diffexp.schedule import Schedule
from diffexp.targets import Target
from diffexp.times import Times
from diffexp.weighting import Weighting

T = TypeVar("T")

#: What may stand inside a node of another kind; inside a network, other modules of torch may too.
PARTS = (Target, Schedule, Weighting, Times, Sampler, Metric, FeatureRecipe, Source)


def built(node: DictConfig, kind: type[T], where: str) -> T:
    """What the node describes.

    Args:
        node: A class by `_target_` and its arguments.
        kind: What the class must extend.
        where: The node's key, for messages.

    Raises:
        ValueError: The node, or one inside it, does not name a class of the right kind.
        InstantiationException: A name cannot be found, or the class refuses its arguments.
    """
    refuse_other_kinds(node, kind, where)
    made = instantiate(node, _convert_="all")
    if not isinstance(made, kind):
        raise ValueError(f"{where}: {_name(kind)} was expected, and this makes a {type(made).__name__}.")
    return made


def refuse_other_kinds(node: DictConfig, kind: type[Any], where: str) -> None:
    """Refuse a node that names anything but classes of the right kind, without calling any.

    Raises:
        ValueError: As in `built`.
        InstantiationException: A name cannot be found.
    """
    plain = cast(Mapping[Any, Any], OmegaConf.to_container(node, resolve=True) if OmegaConf.is_dict(node) else {})
    if not isinstance(plain.get("_target_"), str):
        raise ValueError(f"{where}: no class is named here. Give {where}._target_=MODULE.CLASS, {_name(kind)}.")
    within: tuple[type, ...] = (*PARTS, nn.Module) if issubclass(kind, nn.Module) else PARTS
    classes: list[tuple[Mapping[Any, Any], type[Any], str]] = []
    for key, settings in _nodes(plain, where):
        name = str(settings["_target_"])
        allowed: tuple[type, ...] = (kind,) if key == where else within
        found = _found(name, key)
        if not (isinstance(found, type) and issubclass(found, allowed)):
            told = _name(kind) if key == where else "one that may be a part of another"
            what = "another class" if isinstance(found, type) else "no class"
            raise ValueError(f"{key}._target_={name}: this must name {told}, and it is {what}.")
        for flag in ("_partial_", "_recursive_"):
            if not isinstance(settings.get(flag, False), bool):
                raise ValueError(f"{key}.{flag}={settings[flag]}: must be true or false. Leave it out.")
        classes.append((settings, cast(type[Any], found), key))
    for settings, found, key in classes:
        refuse_other_types(settings, found, key)


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


def _found(name: str, where: str) -> object:
    from hydra._internal.utils import _locate  # pyright: ignore[reportPrivateUsage]

    try:
        return _locate(name)
    except Exception as error:
        raise InstantiationException(f"Error locating target '{name}'\nfull_key: {where}") from error
