"""A trained run, loaded from its directory by a command."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from diffexp.cli import build
from diffexp.cli.run_config import find_run
from diffexp.denoiser import Denoiser
from diffexp.runs.study import Run
from diffexp.training.loading import read_weights, weights_file
from diffexp.training.samples import Samples
from diffexp.training.setup import Setup


@dataclass(frozen=True)
class LoadedRun:
    """A run's averaged network with everything that it was trained with.

    Attributes:
        cfg: The run's configuration, with what the command line replaced.
        step: Training steps behind the weights.
        record: Its run.json.
    """

    cfg: DictConfig
    parts: Setup
    denoiser: Denoiser
    device: torch.device
    step: int
    record: Mapping[str, Any]

    def samples(self) -> Samples:
        """Its samples, from the same noise as every other run's."""
        return self.parts.samples(self.denoiser)


def load_run(cfg: DictConfig) -> LoadedRun:
    """The run at `cfg.run` with its `cfg.weights`, and the sampler, metric and sampling settings of `cfg`.

    Raises:
        UserError: There is no such run, or it has no checkpoint yet.
        UserError: Its weights cannot be read, or are those of another configuration.
    """
    run = find_run(cfg.run)
    step, weights = read_weights(run, cfg.weights)
    replaced, device = configuration(run, cfg), build.device(cfg)
    parts = build.setup(replaced, choices(run)).to(device)
    denoiser = parts.denoiser(int(replaced.seed), device)
    denoiser.network.load_state_dict(weights)
    denoiser.network.requires_grad_(False).eval()
    return LoadedRun(replaced, parts, denoiser, device, step, run.record)


def configuration(run: Run, cfg: DictConfig) -> DictConfig:
    """The run's configuration, with what the command line replaced of its measurement."""
    given = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    merged = {key: given[key] for key in ("sampling", "trainer", "cache") if key in given}
    replaced = cast(DictConfig, OmegaConf.merge(OmegaConf.create(run.config), merged))
    replaced.update({key: given[key] for key in ("sampler", "metric") if key in given})
    return replaced


def choices(run: Run) -> dict[str, str]:
    """Which file was taken of each group, as the run's record has it."""
    return {key: str(value) for key, value in run.record.items()}


def require_measurable(cfg: DictConfig) -> None:
    """Require what can be found out without reading weights: that they are there, and that the parts fit together.

    Raises:
        UserError: There is no such run, it has no such weights, or the sampler cannot be used on its schedule.
    """
    run = find_run(cfg.run)
    weights_file(run, str(cfg.weights))
    parts = build.setup(configuration(run, cfg), choices(run))
    parts.metric.validate(parts.data)
