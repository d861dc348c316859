"""From a configuration to the objects that it names, each made once."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from diffexp.cli.config import choices, compose_choice
from diffexp.cli.errors import user_message
from diffexp.cli.feasibility import require_invertible
from diffexp.cli.instantiate import built, validate_classes
from diffexp.data.base import Data, Source
from diffexp.denoiser import Denoiser
from diffexp.errors import UserError, did_you_mean
from diffexp.metrics.samples import Metric, PreparedMetric
from diffexp.objective import Objective
from diffexp.runs.config_keys import NETWORK_FITS
from diffexp.samplers import Sampler
from diffexp.schedule import Schedule
from diffexp.targets import Target
from diffexp.times import Times
from diffexp.training.devices import find_device, resolve_auto
from diffexp.training.instantiate import attributed
from diffexp.training.module import MakeOptimizer
from diffexp.training.settings import Compute, Sampling, Training, Validation
from diffexp.training.setup import MakeNetwork, Setup
from diffexp.training.train import make_trainer, quiet
from diffexp.weighting import Weighting


def device(cfg: DictConfig) -> torch.device:
    """Where `trainer.accelerator` puts the run.

    Raises:
        UserError: There is no such accelerator here.
    """
    return find_device(str(cfg.trainer.accelerator))


def setup(cfg: DictConfig, chosen: Mapping[str, str]) -> Setup:
    """The objects of a run, checked together; those of the last configuration are kept.

    Args:
        cfg: The configuration.
        chosen: Which file was taken of each group.

    Raises:
        UserError: A combination that cannot work, before anything has been trained or written.
    """
    key = OmegaConf.to_yaml(cfg, resolve=True)
    if key not in _last_setup:
        made = _setup(cfg, chosen)
        _last_setup.clear()
        _last_setup[key] = made
    return _last_setup[key]


_last_setup: dict[str, Setup] = {}


def _setup(cfg: DictConfig, chosen: Mapping[str, str]) -> Setup:
    schedule, times = built(cfg.schedule, Schedule, "schedule"), built(cfg.times, Times, "times")
    target, weighting = built(cfg.target, Target, "target"), built(cfg.weighting, Weighting, "weighting")
    sampler, loss_space = built(cfg.sampler, Sampler, "sampler"), space(cfg)
    require_invertible(
        cfg, chosen, Objective(target, loss_space, weighting), schedule, times, sampler
    )  # before data loads
    return Setup(
        target=target,
        data=load_data(OmegaConf.to_yaml(cfg.data, resolve=True)),
        network=network(cfg),
        schedule=schedule,
        space=loss_space,
        weighting=weighting,
        times=times,
        optimizer=optimizer(cfg),
        sampler=sampler,
        metric=built(cfg.metric, Metric, "metric"),
        normalize=bool(cfg.objective.normalize),
        training=Training(**_section(cfg.training)),
        validation=Validation(**{"t_start": cfg.sampling.t_start, **_section(cfg.validation)}),
        sampling=Sampling(every=cfg.sampling.get("every"), grid=int(cfg.sampling.get("grid", 64))),
        compute=Compute(**_section(cfg.compute)),
        trainer={key: value for key, value in _section(cfg.trainer).items() if key not in _NOT_FOR_THE_TRAINER},
    )


#: What `make_trainer` decides, from the run's device and length.
_NOT_FOR_THE_TRAINER = ("_target_", "max_steps", "accelerator", "devices")


def _section(node: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))


def space(cfg: DictConfig) -> Target | None:
    """The target in whose space the loss is computed; None for each target's own.

    Raises:
        UserError: There is no such target.
    """
    name = str(cfg.objective.space)
    if name == "native":
        return None
    if name not in (there := choices("target")):
        raise UserError(
            f"objective.space={name}: the loss is computed in the space of a target, and there is no {name}."
            f"{did_you_mean(name, ['native', *there])} Choices: native, {', '.join(there)}."
        )
    return built(compose_choice("target", name, cfg), Target, f"target={name}")


@functools.lru_cache(maxsize=4)
def load_data(node: str) -> Data:
    """The data set that a resolved `data` node (as YAML) names, read once per process."""
    return built(cast(DictConfig, OmegaConf.create(node)), Source, "data").load()


def network(cfg: DictConfig) -> MakeNetwork:
    """Makes the network from what `Setup.denoiser` passes."""
    validate_classes(cfg.network, torch.nn.Module, "network")
    return functools.partial(built, cfg.network, torch.nn.Module, "network")


def optimizer(cfg: DictConfig) -> MakeOptimizer:
    """Makes the optimiser from the parameters."""
    validate_classes(cfg.optimizer, torch.optim.Optimizer, "optimizer")
    return functools.partial(built, cfg.optimizer, torch.optim.Optimizer, "optimizer")


def prepared_metric(cfg: DictConfig, parts: Setup, device: torch.device) -> PreparedMetric:
    """The metric with its features and reference statistics at hand, made once per process."""
    named = OmegaConf.to_yaml(cfg.metric, resolve=True), OmegaConf.to_yaml(cfg.data, resolve=True), device
    if named not in _prepared:
        _prepared[named] = parts.to(device).prepared_metric()
    return _prepared[named]


_prepared: dict[tuple[str, str, torch.device], PreparedMetric] = {}


def try_network(cfg: DictConfig, parts: Setup, device: torch.device) -> None:
    """Make the network, call it once, and make its optimiser and trainer; what the jobs of a sweep share is tried once.

    The last network is kept for the training of the same configuration and seed: see `take_denoiser`.

    Raises:
        UserError: One of them cannot be made or used with these settings.
    """
    named = tuple(OmegaConf.to_yaml(cfg[key], resolve=True) for key in NETWORK_FITS)
    if named in _tried:
        return
    made = parts.denoiser(int(cfg.seed), device)
    try:
        _predict_once(made, parts, device)
    except Exception as error:
        if user_message(error):
            raise
        raise attributed("network", type(made.network), error) from error
    parts.optimizer(made.network.parameters())
    _try_trainer(cfg, parts, device)
    resolve_auto("compile", parts.compute.compile, device)
    _tried.add(named)
    _last_denoiser.clear()
    _last_denoiser[_denoiser_key(cfg, device)] = made


_tried: set[tuple[str, ...]] = set()
_last_denoiser: dict[str, Denoiser] = {}


def take_denoiser(cfg: DictConfig, device: torch.device) -> Denoiser | None:
    """The untrained denoiser of this configuration and seed, if `try_network` has just made it; given away once."""
    return _last_denoiser.pop(_denoiser_key(cfg, device), None)


def _denoiser_key(cfg: DictConfig, device: torch.device) -> str:
    return f"{device} {OmegaConf.to_yaml(cfg, resolve=True)}"


@torch.no_grad()
def _predict_once(denoiser: Denoiser, parts: Setup, device: torch.device) -> None:
    """As training does: in float32, for times in float64."""
    x = parts.data.heldout(2).to(device)
    t = torch.full((len(x), 1, 1, 1), parts.times.range(parts.schedule)[1], dtype=torch.float64, device=device)
    denoiser.eval().predict(x, t)
    denoiser.train()


def _try_trainer(cfg: DictConfig, parts: Setup, device: torch.device) -> None:
    if cfg.trainer.get("_target_") != "pytorch_lightning.Trainer":
        raise UserError(f"trainer._target_={cfg.trainer.get('_target_')}: must be pytorch_lightning.Trainer.")
    unknown = [key for key in parts.trainer if key not in inspect.signature(pl.Trainer).parameters]
    if unknown:
        near = did_you_mean(unknown[0], inspect.signature(pl.Trainer).parameters)
        raise UserError(f"trainer.{unknown[0]}: Lightning's Trainer has no such argument.{near}")
    try:
        with quiet():
            make_trainer(parts, device, max_steps=1)
    except (TypeError, ValueError, ImportError, MisconfigurationException) as error:
        given = " ".join(f"trainer.{key}={value}" for key, value in parts.trainer.items())
        raise UserError(f"{given}: {' '.join(str(error).split())}") from error
