"""A trained run, taken up again from its directory by a command."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from diffexp.cli import build
from diffexp.cli.run_config import find_run
from diffexp.denoiser import Denoiser
from diffexp.training.load import read_weights
from diffexp.training.samples import Samples
from diffexp.training.setup import Setup


@dataclass(frozen=True)
class Trained:
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


def trained(cfg: DictConfig) -> Trained:
    """The run at `cfg.run` with its `cfg.weights`, and the sampler, metric and sampling settings of `cfg`.

    Raises:
        UserError: There is no such run, or it has no checkpoint yet.
        UserError: Its weights cannot be read, or are those of another configuration.
    """
    run = find_run(cfg.run)
    own = OmegaConf.create(run.config)
    step, weights = read_weights(run, cfg.weights)
    said = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    merged = {key: said[key] for key in ("sampling", "trainer", "cache") if key in said}
    replaced = cast(DictConfig, OmegaConf.merge(own, merged))
    replaced.update({key: said[key] for key in ("sampler", "metric") if key in said})
    chosen = {key: str(value) for key, value in run.record.items()}
    device = build.device(cfg)
    parts = build.setup(replaced, chosen).to(device)
    denoiser = parts.denoiser(int(replaced.seed), device)
    denoiser.network.load_state_dict(weights)
    denoiser.network.requires_grad_(False).eval()
    return Trained(replaced, parts, denoiser, device, step, run.record)
