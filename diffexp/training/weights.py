"""Averaged weights alone, in small files that name the configuration they belong to; no code."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from diffexp.errors import UserError
from diffexp.io.files import replacing
from diffexp.io.jsonio import strict_json
from diffexp.runs.directory import differences, identity

BEST_METRIC = "val/belief_eps"
"""What the best weights are the best in: the lowest wins. One unit for all targets, and named in the file."""


@dataclass(frozen=True)
class Weights:
    """The averaged weights of a network.

    Attributes:
        step: Training steps behind them.
        value: Their `BEST_METRIC`.
    """

    tensors: Mapping[str, Tensor]
    step: int
    value: float

    def save(self, path: Path, config: Mapping[str, Any]) -> None:
        """Write them to `path`, atomically, with the configuration (see `runs.identity`) that they belong to."""
        metadata = {"config": identity(config), "step": self.step, "metric": BEST_METRIC, "value": self.value}
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in self.tensors.items()}
        with replacing(path) as part:  # one entry: safetensors writes several in an order of chance
            part.write_bytes(save(tensors, {"diffexp": strict_json(metadata)}))

    @classmethod
    def read(cls, path: Path, config: Mapping[str, Any]) -> "Weights":
        """Those at `path`, on the CPU.

        Raises:
            UserError: They cannot be read, or belong to another configuration.
        """
        try:
            opened: Any = safe_open(path, framework="pt")
            with opened as file:
                metadata = cast(Mapping[str, Any], json.loads(file.metadata()["diffexp"]))
                names: list[str] = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
            theirs, weights = (
                identity(metadata["config"]),
                cls(tensors, int(metadata["step"]), float(metadata["value"])),
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            raise UserError(f"{path} cannot be read as weights of a run ({why}). Move it away.") from error
        if differs := differences(theirs, json.loads(strict_json(identity(config)))):
            raise UserError(f"{path} holds weights of another configuration ({differs}). Move it away.")
        return weights


class BestWeights:
    """Keeps at `path` the averaged weights whose `BEST_METRIC` is the lowest of all that were measured.

    What an earlier start of the run kept counts: what it measured after its last checkpoint is measured again, and is
    the same.

    Raises:
        UserError: What is there is not this run's.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path, self.config = path, config
        self.lowest = Weights.read(path, config).value if path.exists() else math.inf

    def __call__(self, averaged: nn.Module, step: int, measured: Mapping[str, float]) -> None:
        """Keep these if they are better."""
        if measured[BEST_METRIC] < self.lowest:
            self.lowest = measured[BEST_METRIC]
            Weights(averaged.state_dict(), step, self.lowest).save(self.path, self.config)
