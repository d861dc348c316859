"""A trained run, taken up again from its directory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from diffexp.cli import build
from diffexp.cli.run_config import find_run
from diffexp.denoiser import Denoiser
from diffexp.runs.study import Run
from diffexp.training.checkpoints import read_checkpoint
from diffexp.training.samples import Samples
from diffexp.training.weights import Weights


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
    """The run at `cfg.run` with its `cfg.weights`, and the sampler, metric and sampling settings of `cfg`.

    Raises:
        FileNotFoundError: There is no such run, or it has no checkpoint yet.
        ValueError: Its weights cannot be read, or are those of another configuration.
    """
    run = find_run(cfg.run)
    own = OmegaConf.create(run.config)
    step, weights = (_best if cfg.weights == "best" else _last)(run, run.config)
    said = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    merged = {key: said[key] for key in ("sampling", "trainer", "cache") if key in said}
    replaced = cast(DictConfig, OmegaConf.merge(own, merged))
    replaced.update({key: said[key] for key in ("sampler", "metric") if key in said})
    chosen = {key: str(value) for key, value in run.record.items()}
    parts, where = build.problem(replaced, chosen), build.device(cfg)
    denoiser = build.denoiser(replaced, parts, where)
    denoiser.network.load_state_dict(weights)
    denoiser.network.requires_grad_(False).eval()
    return Trained(replaced, parts.to(where), denoiser, where, step, run.record)


def _last(run: Run, config: Mapping[str, Any]) -> tuple[int, Mapping[str, Tensor]]:
    """The step of the last checkpoint and its averaged weights."""
    checkpoint = read_checkpoint(_file(run, "last.ckpt", "every checkpoint.every_n_steps and at its end"), config)
    state: Mapping[str, Tensor] = checkpoint["state_dict"]
    prefix = "ema.network."
    averaged = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    return int(checkpoint["global_step"]), averaged


def _best(run: Run, config: Mapping[str, Any]) -> tuple[int, Mapping[str, Tensor]]:
    """The step at which the belief about eps was best, and its averaged weights."""
    weights = Weights.read(_file(run, "best.safetensors", "at its first validation"), config)
    return weights.step, weights.tensors


def _file(run: Run, name: str, when: str) -> Path:
    file = run.file(f"checkpoints/{name}")
    if file is None and (run.path / "checkpoints" / name).is_file():
        raise ValueError(f"run={run.path}: its {name} is a link out of the study, and is not followed. Copy it there.")
    if file is None:
        advice = f"A run writes one {when}; type its command again to go on."
        if run.status == "diverged":
            advice = f"It diverged before, and a run writes one {when}. Its best weights may be there: weights=best."
        raise FileNotFoundError(f"run={run.path}: no checkpoint yet ({name} is missing). {advice}")
    return file
