"""A trained run, taken up again from its directory."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from diffexp.apps import build
from diffexp.denoiser import Denoiser
from diffexp.ema import Ema
from diffexp.runs import Run, identity
from diffexp.sampling import Samples


@dataclass(frozen=True)
class Trained:
    """A run's averaged network with everything that it was trained with.

    Attributes:
        cfg: The run's configuration, with what the command line replaced.
        step: Training steps behind the weights.
    """

    cfg: DictConfig
    parts: build.Problem
    denoiser: Denoiser
    device: torch.device
    step: int

    def samples(self) -> Samples:
        """Its samples, from the same noise as every other run's."""
        return Samples(self.denoiser, self.parts.sampler, self.parts.data.image_shape, self.device)


def trained(cfg: DictConfig) -> Trained:
    """The run at `cfg.run`, with the sampler, metric and sampling settings of `cfg` where it names any.

    Raises:
        FileNotFoundError: There is no such run, or it has no checkpoint yet.
        ValueError: The checkpoint cannot be read, or is one of another configuration.
    """
    path = Path(cfg.run).resolve()
    run = Run.at(path)
    if run is None or not run.config:
        raise FileNotFoundError(
            f"run={cfg.run}: there is no run in that folder. Give a run's directory, "
            "<root>/<study>/<choices>-<hash>/seed=<N>; `diffexp report STUDY` lists them."
        )
    own = OmegaConf.create(run.config)
    checkpoint = _checkpoint(path, own)
    given = {key: value for key, value in cfg.sampling.items() if value is not None}
    changes = {"sampling": given, "sampler": given, "trainer": cfg.trainer}
    if cfg.get("cache"):
        changes["cache"] = cfg.cache
    replaced = cast(DictConfig, OmegaConf.merge(own, changes))
    for key in ("sampler", "metric"):
        if cfg.get(key) is not None:
            replaced[key] = cfg[key]
    chosen = {key: str(value) for key, value in run.record.items()}
    parts, where = build.problem(replaced, chosen), build.device(cfg)
    denoiser = build.denoiser(replaced, parts, where)
    averaged = Ema(denoiser.network, decay=0.0)
    weights = {k.removeprefix("ema."): v for k, v in checkpoint["state_dict"].items() if k.startswith("ema.")}
    averaged.load_state_dict(weights)
    denoiser.network = averaged.network
    data = parts.data.to(where)
    return Trained(replaced, dataclasses.replace(parts, data=data), denoiser, where, int(checkpoint["global_step"]))


def _checkpoint(path: Path, own: Any) -> dict[str, Any]:
    file = path / "checkpoints" / "last.ckpt"
    if not file.is_file():
        raise FileNotFoundError(
            f"run={path}: no checkpoint yet ({file.name} is missing). A run writes one every checkpoint.every_n_steps "
            "and at its end; type its command again to go on."
        )
    try:
        checkpoint = cast(dict[str, Any], torch.load(file, map_location="cpu", weights_only=True))
        theirs = identity(checkpoint["diffexp"]["config"])
    except Exception as error:
        raise ValueError(
            f"{file} is no checkpoint of diffexp that can be read ({' '.join(str(error).split())[:200]}). "
            "Delete it and type the run's command again."
        ) from error
    mine = identity(cast(dict[str, Any], OmegaConf.to_container(own)))
    if theirs != mine:
        keys = sorted(k for k in theirs.keys() | mine.keys() if theirs.get(k) != mine.get(k))
        raise ValueError(
            f"{file} is a checkpoint of another configuration: it differs from config.yaml in {', '.join(keys[:6])}. "
            "Put the run's own checkpoint back, or train it anew under another study=."
        )
    return checkpoint
