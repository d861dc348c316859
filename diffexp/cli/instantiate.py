"""Nodes of a composed configuration to objects; see `diffexp.training.instantiate`."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from diffexp.training import instantiate

T = TypeVar("T")


def built(node: DictConfig, kind: type[T], where: str, *args: Any, **kwargs: Any) -> T:
    """`build_object` for a node of the job's configuration; messages show the job's overrides."""
    with _showing_overrides():
        return instantiate.build_object(_plain(node), kind, where, *args, **kwargs)


def validate_classes(node: DictConfig, kind: type[Any], where: str) -> None:
    """The function of that name, for a node of the job's configuration."""
    with _showing_overrides():
        instantiate.validate_classes(_plain(node), kind, where)


@contextmanager
def _showing_overrides() -> Generator[None]:
    job = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    token = instantiate.overrides.set(job)
    try:
        yield
    finally:
        instantiate.overrides.reset(token)


def _plain(node: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True) if OmegaConf.is_dict(node) else {})
