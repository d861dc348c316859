"""A trained run, taken up again from its directory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from diffexp.apps import build
from diffexp.apps.checkpoints import read_checkpoint
from diffexp.apps.own_settings import find_run
from diffexp.denoiser import Denoiser
from diffexp.ema import Ema
from diffexp.sampling import Samples
from diffexp.studies import Run


@dataclass(frozen=True)
class Trained:
    """A run's averaged network with everything that it was trained with.

    Attributes:
        cfg: The run's configuration, with what the command line replaced.
        step: Training steps behind the weights.
        record: Its run.json.
    """

    cfg: DictConfig
    parts: build.Problem
    denoiser: Denoiser
    device: torch.device
    step: int
    record: Mapping[str, Any]

    def samples(self) -> Samples:
        """Its samples, from the same noise as every other run's."""
        return self.parts.samples(self.denoiser)


def trained(cfg: DictConfig) -> Trained:
    """The run at `cfg.run`, with the sampler, metric and sampling settings of `cfg`.

    Raises:
        FileNotFoundError: There is no such run, or it has no checkpoint yet.
        ValueError: The checkpoint cannot be read, or is one of another configuration.
    """
    run = find_run(cfg.run)
    own = OmegaConf.create(run.config)
    checkpoint = _checkpoint(run, own)
    said = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    merged = {key: said[key] for key in ("sampling", "trainer", "cache") if key in said}
    replaced = cast(DictConfig, OmegaConf.merge(own, merged))
    replaced.update({key: said[key] for key in ("sampler", "metric") if key in said})
    chosen = {key: str(value) for key, value in run.record.items()}
    parts, where = build.problem(replaced, chosen), build.device(cfg)
    denoiser = build.denoiser(replaced, parts, where)
    averaged = Ema(denoiser.network, decay=0.0)
    weights = {k.removeprefix("ema."): v for k, v in checkpoint["state_dict"].items() if k.startswith("ema.")}
    averaged.load_state_dict(weights)
    denoiser.network = averaged.network
    step = int(checkpoint["global_step"])
    return Trained(replaced, parts.to(where), denoiser, where, step, run.record)


def _checkpoint(run: Run, own: Any) -> dict[str, Any]:
    file = run.file("checkpoints/last.ckpt")
    if file is None and (run.path / "checkpoints/last.ckpt").is_file():
        raise ValueError(
            f"run={run.path}: its checkpoint is a link out of the study, and is not followed. Copy it there."
        )
    if file is None:
        raise FileNotFoundError(
            f"run={run.path}: no checkpoint yet (last.ckpt is missing). A run writes one every "
            "checkpoint.every_n_steps and at its end; type its command again to go on."
        )
    return read_checkpoint(file, cast(dict[str, Any], OmegaConf.to_container(own)))
