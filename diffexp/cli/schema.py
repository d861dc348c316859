"""The types and ranges of the settings that no class of its own validates.

OmegaConf checks the types against a dataclass, for every command that has the setting; conf/ has the defaults. A class
that `_target_` names validates its own arguments.
"""

import math
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any, TypeAlias, cast

from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, ValidationError
from omegaconf.errors import ConfigKeyError

from diffexp.cli.identity import plain
from diffexp.errors import UserError, did_you_mean, nearest
from diffexp.io.redact import secret_in
from diffexp.runs.directory import flat
from diffexp.training.setting_types import as_typed, in_words
from diffexp.training.settings import Compute, Sampling, Training, Validation


@dataclass
class Objective:
    space: str = MISSING
    normalize: bool = MISSING


@dataclass(frozen=True)
class SamplingSection(Sampling):
    """With what the samplers of conf/sampler share."""

    clip: bool | None = MISSING
    t_start: float | None = MISSING
    t_end: float | None = MISSING


@dataclass
class Checkpoint:
    every_n_steps: int = MISSING


@dataclass
class Likelihood:
    count: int = MISSING
    steps: int | None = MISSING
    variance: str = MISSING
    flow_steps: int = MISSING
    flow_draws: int = MISSING


@dataclass
class Settings:
    root: str = MISSING
    study: str | None = MISSING  # null where `run=` may name runs instead
    seed: int = MISSING
    cache: str | None = MISSING
    fail_fast: bool = MISSING
    objective: Objective = field(default_factory=Objective)
    training: Training = field(default_factory=Training)
    validation: Validation = field(default_factory=Validation)
    sampling: SamplingSection = field(default_factory=SamplingSection)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    compute: Compute = field(default_factory=Compute)
    trainer: dict[str, Any] = MISSING  # Lightning's, which validates its own
    likelihood: Likelihood = field(default_factory=Likelihood)
    weights: str = MISSING
    again: bool = MISSING


def typed(cfg: DictConfig) -> DictConfig:
    """The configuration with every setting that `Settings` has converted to its type: 1 is 1.0 where that is a float.

    Raises:
        UserError: A value cannot be converted, or a section has a key that nothing reads.
    """
    try:
        return cast(DictConfig, OmegaConf.merge(_schema_of(cfg), cfg))
    except ConfigKeyError as error:
        section, _, key = str(error.full_key).rpartition(".")
        known = sorted(typing.get_type_hints(error.object_type))
        near = nearest(key, known)
        hint = f"Did you mean {section}.{near}?" if near else f"Keys of {section}: {', '.join(known)}."
        raise UserError(f"{error.full_key}: there is no such setting. {hint}") from error
    except ValidationError as error:
        wanted = in_words(typing.get_type_hints(error.object_type)[str(error.key)])
        raise UserError(f"{error.full_key}={as_typed(error.value)}: must be {wanted}.") from error


def _schema_of(cfg: DictConfig) -> DictConfig:
    """The part of `Settings` that the configuration has: each command has its own."""
    schema = cast(DictConfig, OmegaConf.structured(Settings))
    OmegaConf.set_struct(schema, False)  # the groups stand beside the settings
    OmegaConf.set_readonly(schema, False)
    for key, kind in typing.get_type_hints(Settings).items():
        if key not in cfg or OmegaConf.is_interpolation(cfg, key):
            del schema[key]
            continue
        if is_dataclass(kind) or typing.get_origin(kind) is dict:
            there = OmegaConf.select(cfg, key)
            if not isinstance(there, DictConfig):
                raise UserError(f"{key}={as_typed(there)}: this is a section. Set one of its keys, {key}.KEY=VALUE.")
        if is_dataclass(kind):
            OmegaConf.set_struct(schema[key], False)
            OmegaConf.set_readonly(schema[key], False)
            for name in typing.get_type_hints(kind).keys() - cfg[key].keys():
                del schema[key][name]
            OmegaConf.set_struct(schema[key], None)
    return schema


def validate_settings(cfg: DictConfig) -> None:
    """Require values that a run can have, of the settings that the configuration has.

    Raises:
        UserError: Names the key, its value and what it may be.
    """
    settings = dict(flat(plain(cfg)))
    wrong = [
        f"{key}={as_typed(settings[key])}: must be {must}."
        for key, (fine, must) in _RANGES.items()
        if key in settings and not fine(settings[key])
    ]
    if "seed" in settings and settings.get("study", "") is None:
        wrong.append("study=null: must be text.")
    for key, why in _SET_ELSEWHERE.items():
        if (value := OmegaConf.select(cfg, key)) is not None:
            wrong.append(f"{key}={value}: {why}")
    for key, value in settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            wrong.append(f"{key}={value}: must be a finite number.")
        if reason := secret_in(key, value):
            wrong.append(
                f"{key}: {reason}, and a run's configuration is written into its directory. Leave it in the "
                "environment: W&B and the Hugging Face hub read WANDB_API_KEY and HF_TOKEN themselves."
            )
    if wrong:
        raise UserError("\n".join(wrong))


def validate_unread(cfg: DictConfig, groups: Mapping[str, object]) -> None:
    """Require that something reads each key at the top level: a group, a setting, or another value through `${key}`.

    Raises:
        UserError: Names the key.
    """
    known = {*groups, *typing.get_type_hints(Settings)}
    text = OmegaConf.to_yaml(cfg)
    for key in map(str, cfg):
        if key not in known and not re.search(rf"\$\{{{re.escape(key)}\b", text):
            raise UserError(f"{key}={cfg[key]}: nothing reads this key.{did_you_mean(key, sorted(known))}")


def validate_processes(cfg: DictConfig, processes: int, mode: RunMode | None) -> None:
    """Require what several processes can train together.

    Raises:
        UserError: A sweep, or a batch that cannot be divided into equal shares.
    """
    size = int(cfg.training.batch_size)
    if processes > 1 and mode is RunMode.MULTIRUN:
        raise UserError(
            f"a sweep (-m) in {processes} processes (WORLD_SIZE={processes}): processes that torchrun starts train one "
            "run together. Leave torchrun out, and every run is trained in one process; or start torchrun once for "
            "each run, without -m (and with hydra.mode=RUN after an experiment= that is a sweep)."
        )
    if size % processes:
        raise UserError(
            f"training.batch_size={size} cannot be shared by {processes} processes (WORLD_SIZE={processes}): it counts "
            f"the images of all, and each takes as many. Take {max(size // processes, 1) * processes}."
        )


Range: TypeAlias = tuple[Callable[[Any], bool], str]
"""Whether a value is in it, and its description."""


def _at_least(low: int, *others: object) -> Range:
    fine: Callable[[Any], bool] = lambda value: value in others or (type(value) is int and value >= low)  # noqa: E731
    return fine, f"{'null or ' if others else ''}a whole number, {low} or more"


def _one_of(*values: str | None) -> Range:
    *first, last = [value or "null" for value in values]
    return lambda value: value in values, f"{', '.join(first)} or {last}, for example {values[0]}"


_RANGES: Mapping[str, Range] = {
    "trainer.max_steps": _at_least(1),
    "trainer.devices": (lambda value: value == 1, "1 (torchrun trains one run on several GPUs: docs/clusters.md)"),
    "training.batch_size": _at_least(1),
    "training.log_every": _at_least(1),
    "training.warmup_steps": _at_least(0),
    "training.ema_decay": (lambda value: 0 <= value < 1, "from 0 to below 1, for example 0.999"),
    "validation.every": _at_least(1),
    "validation.count": _at_least(1),
    "validation.batch_size": _at_least(1),
    "validation.bound": _one_of("beta", "beta_tilde", None),
    "sampling.grid": _at_least(1),
    "sampling.every": _at_least(1, None),
    "checkpoint.every_n_steps": _at_least(1),
    "compute.precision": _one_of("auto", "32", "bf16"),
    "compute.channels_last": (lambda value: value in ("auto", True, False), "auto, true or false"),
    "compute.compile": (lambda value: value in ("auto", True, False), "auto, true or false"),
    "weights": _one_of("last", "best"),
    "likelihood.count": _at_least(0),
    "likelihood.steps": _at_least(2, None),
    "likelihood.variance": _one_of("beta", "beta_tilde", "optimal"),
    "likelihood.flow_steps": _at_least(1),
    "likelihood.flow_draws": _at_least(2),
}

_SET_ELSEWHERE = {
    "trainer.accumulate_grad_batches": "each step draws its own images; raise training.batch_size instead.",
    "trainer.fast_dev_run": "set trainer.max_steps to a few steps instead.",
    "trainer.precision": "set compute.precision instead.",
    "trainer.strategy": "start the run with torchrun instead, one process per GPU: docs/clusters.md.",
    "trainer.num_nodes": "start the run with torchrun instead, one process per GPU: docs/clusters.md.",
    "trainer.logger": "set logger= instead.",
    "trainer.callbacks": "the run's own callbacks write its record.",
}
