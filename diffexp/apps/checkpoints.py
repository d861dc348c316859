"""Checkpoints: whole or absent, free of code, never of weights that are not numbers, and of one configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from diffexp.callbacks import Diverged
from diffexp.files import replacing
from diffexp.runs import identity


class AtomicCheckpoints(TorchCheckpointIO):
    """Written beside their place and renamed; read without unpickling."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `path`, atomically."""
        with replacing(Path(path)) as part:
            torch.save(checkpoint, part)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read tensors and plain values."""
        return torch.load(path, map_location="cpu", weights_only=True)


class Checkpoint(pl.Callback):
    """Saves `path` every `every` steps, with the configuration that it belongs to.

    Raises:
        Diverged: A weight is no longer a finite number; the last good checkpoint stays.
    """

    def __init__(self, path: Path, every: int, config: Mapping[str, Any]) -> None:
        self.path, self.every, self.config = path, every, dict(config)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, and after the last step, before anything else can fail."""
        if trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            norms = torch.stack(torch._foreach_norm([p.detach() for p in pl_module.parameters()]))  # pyright: ignore
            if not norms.isfinite().all():
                raise Diverged(f"a weight is no longer a finite number at step {trainer.global_step}")
            trainer.save_checkpoint(self.path)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Say what it is a checkpoint of, in plain values."""
        checkpoint["diffexp"] = {"config": self.config}


def read_checkpoint(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint at `path`, on the CPU.

    Args:
        path: A file that exists.
        config: The configuration that it must belong to.

    Raises:
        ValueError: It cannot be read, or belongs to another configuration.
    """
    try:
        checkpoint = cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))
        theirs = identity(checkpoint["diffexp"]["config"])
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({' '.join(str(error).split())[:160]}). Move it away, and the "
            "run's command starts over."
        ) from error
    mine = identity(config)
    if theirs != mine:
        keys = sorted(key for key in theirs.keys() | mine.keys() if theirs.get(key) != mine.get(key))
        raise ValueError(
            f"{path} is a checkpoint of another configuration: it differs in {', '.join(keys[:6])}. Put the run's own "
            "checkpoint back, or move this one away and start over."
        )
    return checkpoint
