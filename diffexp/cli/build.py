"""From a configuration to the objects it names, and everything that can be refused before training."""

import contextlib
import dataclasses
import functools
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from diffexp.cli.config import choices, compose_choice, did_you_mean
from diffexp.cli.constructors import OURS, line_of, told_by_its_key
from diffexp.cli.errors import task_mistake
from diffexp.cli.feasibility import refuse_singular
from diffexp.cli.instantiate import built, refuse_other_kinds
from diffexp.cli.ranks import place
from diffexp.data.base import Data, Source
from diffexp.denoiser import Denoiser
from diffexp.draws import stream_key
from diffexp.metrics.samples import Metric, PreparedMetric
from diffexp.objective import Objective, without_learning
from diffexp.oracle import known_density
from diffexp.samplers import Sampler
from diffexp.schedule import Schedule
from diffexp.targets import Target
from diffexp.times import Times
from diffexp.training.module import DiffusionModule, MakeOptimizer
from diffexp.training.parallel import Share
from diffexp.training.samples import Samples
from diffexp.training.validation import HeldOut
from diffexp.weighting import Weighting


@dataclass(frozen=True)
class Problem:
    """What is compared: everything of a run but its network, its seed and its optimiser."""

    schedule: Schedule
    target: Target
    objective: Objective
    times: Times
    sampler: Sampler
    metric: Metric
    data: Data

    def to(self, where: torch.device) -> "Problem":
        """The same with its data on another device."""
        return dataclasses.replace(self, data=self.data.to(where))

    def held_out(self, validation: DictConfig, t_start: float) -> HeldOut:
        """What every network is validated on."""
        return HeldOut(
            self.data,
            self.objective,
            self.schedule,
            self.times,
            validation.count,
            validation.batch_size,
            known_density(self.data),
            validation.bound,
            t_start,
        )

    def samples(self, denoiser: Denoiser) -> Samples:
        """A network's samples, from the same noise as every other's."""
        return Samples(denoiser, self.sampler, self.data.image_shape, self.data.device)


def problem(cfg: DictConfig, chosen: Mapping[str, str]) -> Problem:
    """Build and check it; `chosen` says which file was taken of each group.

    Raises:
        ValueError: A combination that cannot work, before anything has been trained or written.
        FileNotFoundError: A path that does not exist.
    """
    schedule = built(cfg.schedule, Schedule, "schedule")
    target, weighting = built(cfg.target, Target, "target"), built(cfg.weighting, Weighting, "weighting")
    times, sampler = built(cfg.times, Times, "times"), built(cfg.sampler, Sampler, "sampler")
    objective = Objective(target, space(cfg), weighting)
    refuse_singular(cfg, chosen, objective, schedule, times, sampler)
    data = load_data(OmegaConf.to_yaml(cfg.data, resolve=True))
    return Problem(schedule, target, objective, times, sampler, built(cfg.metric, Metric, "metric"), data)


def space(cfg: DictConfig) -> Target | None:
    """The target in whose units the loss is paid; None for each target's own.

    Raises:
        ValueError: There is no such target.
    """
    name = str(cfg.objective.space)
    if name == "native":
        return None
    if name not in (there := choices("target")):
        raise ValueError(
            f"objective.space={name}: the loss is paid in the units of a target, and there is no {name}."
            f"{did_you_mean(name, ['native', *there])} Choices: native, {', '.join(there)}."
        )
    return built(compose_choice("target", name, cfg), Target, f"target={name}")


@functools.lru_cache(maxsize=4)
def load_data(node: str) -> Data:
    """The data set that a resolved `data` node (as YAML) names, read once per process."""
    return built(cast(DictConfig, OmegaConf.create(node)), Source, "data").load()


def prepared_metric(cfg: DictConfig, parts: Problem, where: torch.device) -> PreparedMetric:
    """The metric with its features and reference statistics at hand, made once per process."""
    named = OmegaConf.to_yaml(cfg.metric, resolve=True), OmegaConf.to_yaml(cfg.data, resolve=True), where
    if named not in _prepared:
        _prepared[named] = parts.metric.prepare(parts.data.to(where), where)
    return _prepared[named]


_prepared: dict[tuple[str, str, torch.device], PreparedMetric] = {}


def device(cfg: DictConfig) -> torch.device:
    """Where `trainer.accelerator` puts the run; of several processes, each on a GPU of its own.

    Raises:
        ValueError: That accelerator is not here, or not one that training knows, or there are too few of them.
    """
    wanted = str(cfg.trainer.accelerator)
    if wanted not in ("auto", "cpu", "gpu", "cuda"):
        raise ValueError(f"trainer.accelerator={wanted}: there are auto, cpu and cuda.")
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError(f"trainer.accelerator={wanted}: no GPU is visible to torch. Set trainer.accelerator=cpu.")
    here, gpus = place(), torch.cuda.device_count()
    if here.world_size > 1 and gpus > 1:  # a scheduler may show each process its own GPU alone
        if here.local_size > gpus:
            raise ValueError(
                f"{here.local_size} processes on this machine, but torch sees {gpus} GPUs: start one process per GPU."
            )
        torch.cuda.set_device(here.local_rank)
    return torch.device("cuda", torch.cuda.current_device())


def optimizer(cfg: DictConfig) -> MakeOptimizer:
    """Makes the optimiser from the parameters."""
    refuse_other_kinds(cfg.optimizer, torch.optim.Optimizer, "optimizer")
    return cast(MakeOptimizer, instantiate(cfg.optimizer, _convert_="all"))


def refuse_unbuildable(cfg: DictConfig, parts: Problem, where: torch.device) -> None:
    """Refuse a network that cannot be made or asked, or an optimiser; what the jobs of a sweep share is tried once.

    Raises:
        ValueError: What they say of their settings, and the settings.
    """
    named = tuple(OmegaConf.to_yaml(cfg[key], resolve=True) for key in _SHAPE_A_NETWORK)
    if named in _built:
        return
    try:
        trained = denoiser(cfg, parts, where)
        _asked_once(trained, parts, where)
    except Exception as error:
        if task_mistake(error):
            raise
        name = str(cfg.network._target_)
        where_in = "" if name.partition(".")[0] in OURS else line_of(error)
        said = f"{name} raises {type(error).__name__}: {' '.join(str(error).split())}{where_in}."
        raise ValueError(told_by_its_key("network", said)) from error
    try:
        optimizer(cfg)(trained.network.parameters())
    except (ValueError, TypeError) as error:
        typed = " ".join(
            f"optimizer.{key}={cfg.optimizer[key]}" for key in cfg.optimizer if not str(key).startswith("_")
        )
        raise ValueError(f"{typed}: {error}. The defaults are those of conf/optimizer/adamw.yaml.") from error
    compiles(cfg, where)
    _built.add(named)


@torch.no_grad()
def _asked_once(denoiser: Denoiser, parts: Problem, where: torch.device) -> None:
    """As training asks: in float32, and of times in float64."""
    x = parts.data.heldout(2).to(where)
    t = torch.full((len(x), 1, 1, 1), parts.times.range(parts.schedule)[1], dtype=torch.float64, device=where)
    denoiser.eval().predict(x, t)


_SHAPE_A_NETWORK = ("network", "optimizer", "schedule", "data", "compute", "trainer")
_built: set[tuple[str, ...]] = set()


def denoiser(cfg: DictConfig, parts: Problem, where: torch.device) -> Denoiser:
    """A fresh network, its weights a function of the seed alone, with its schedule and target."""
    shared = {
        "image_shape": parts.data.image_shape,
        "schedule": parts.schedule,
        "data_std": parts.data.std,
    }
    refuse_other_kinds(cfg.network, torch.nn.Module, "network")
    with seeded(stream_key(cfg.seed, 0, "initial weights")):
        # In two steps: instantiate() would take the schedule, a dataclass, for a configuration.
        network = cast(torch.nn.Module, instantiate(cfg.network, _convert_="all", _partial_=True)(**shared))
    if _on("channels_last", cfg.compute.channels_last, where.type == "cuda"):
        network = cast(torch.nn.Module, cast(Any, network).to(memory_format=torch.channels_last))
    return Denoiser(
        network.to(where), parts.schedule, parts.target, torch.bfloat16 if precision(cfg, where) == "bf16" else None
    )


def module(cfg: DictConfig, parts: Problem, where: torch.device, zero_loss: float, share: Share) -> DiffusionModule:
    """What is trained, fresh; `zero_loss` is what always answering zero costs."""
    trained = denoiser(cfg, parts, where)
    made = DiffusionModule(
        trained,
        parts.objective,
        parts.times,
        parts.data,
        seed=cfg.seed,
        optimizer=optimizer(cfg),
        batch_size=int(cfg.training.batch_size),
        warmup_steps=cfg.training.warmup_steps,
        ema_decay=cfg.training.ema_decay,
        loss_scale=zero_loss if cfg.objective.normalize else 1.0,
        share=share,
    )
    if compiles(cfg, where):
        for network in (trained.network, made.ema.network):
            cast(Any, network).compile()
    return made


def zero_answer(parts: Problem) -> tuple[float, float]:
    """What always answering zero costs, and the part of it that is label noise; see `without_learning`."""
    moment = parts.data.heldout(parts.data.size("heldout")).square().mean().item()
    return without_learning(parts.objective, parts.schedule, parts.times, moment)


@contextlib.contextmanager
def seeded(key: int) -> Generator[None]:
    """torch's own generators at the start of a stream of their own, and as they were afterwards."""
    here = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with cast(Any, torch.random).fork_rng(devices=here):
        cast(Any, torch).manual_seed(key % 2**63)
        yield


def precision(cfg: DictConfig, where: torch.device) -> str:
    """What the network's insides run in: "32" or "bf16"."""
    wanted = str(cfg.compute.precision)
    if wanted not in ("auto", "32", "bf16"):
        raise ValueError(f"compute.precision={wanted}: there are auto, 32 and bf16.")
    return ("bf16" if where.type == "cuda" else "32") if wanted == "auto" else wanted


def compiles(cfg: DictConfig, where: torch.device) -> bool:
    """Whether the networks are compiled."""
    return _on("compile", cfg.compute.compile, where.type == "cuda")


def _on(name: str, setting: object, gpu: bool) -> bool:
    if setting not in ("auto", True, False):
        raise ValueError(f"compute.{name}={setting}: there are auto, true and false.")
    return gpu if setting == "auto" else bool(setting)
