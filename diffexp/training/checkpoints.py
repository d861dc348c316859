"""Checkpoints: written atomically, read without unpickling, never of non-finite weights, and of one configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import nn

from diffexp.errors import UserError
from diffexp.io.files import replacing
from diffexp.runs.directory import RunDirectory, differences, identity
from diffexp.training.callbacks import Diverged
from diffexp.training.signals import Interrupted, Interruption

#: Raised when earlier checkpoints can no longer be resumed from.
FORMAT = 2


class AtomicCheckpoints(TorchCheckpointIO):
    """Written atomically; read without unpickling."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `path`, atomically."""
        with replacing(Path(path)) as part, part.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # raised by torch when it closes the archive; the cause is its context
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read tensors and plain values."""
        return torch.load(path, map_location="cpu", weights_only=True)


class Checkpoint(pl.Callback):
    """Saves last.ckpt every `every` steps, after the last one, and when a signal ends the run.

    A checkpoint is of a step's end before the step is validated and sampled from: a resumed run does that first.
    It records the length of metrics.jsonl and the configuration that it belongs to.

    Args:
        directory: The run's.
        every: Steps.
        config: Of the run.
        interruption: Held while a step is under way and there is work that is not saved.

    Raises:
        Diverged: A weight is no longer a finite number; the last good checkpoint stays.
        Interrupted: A signal came during the step; it is saved.
    """

    def __init__(
        self, directory: RunDirectory, every: int, config: Mapping[str, Any], interruption: Interruption
    ) -> None:
        self.directory, self.every, self.config, self.interruption = directory, every, dict(config), interruption
        self._whole = False  # between two steps, when the state can be saved

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Everything is saved."""
        self._saved = trainer.global_step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A step begins."""
        self.interruption.held = trainer.global_step > self._saved
        self._whole = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is due, and after the last step, before anything else can fail."""
        self._metrics_size = self.directory.metrics_size()
        self._whole = True
        if trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            self._save(trainer)
        self.interruption.held = False
        if self.interruption.signal is not None:
            raise Interrupted(self.interruption.signal)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save what a signal would lose."""
        if isinstance(exception, Interrupted) and not exception.at_once and self._whole:
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step == self._saved:
            return
        parameters = [p.detach() for p in trainer.lightning_module.parameters()]
        norms = torch.stack(torch._foreach_norm(parameters))  # pyright: ignore
        if not norms.isfinite().all():
            raise Diverged(f"a weight is no longer a finite number at step {trainer.global_step}")
        self.directory.sync_metrics()
        trainer.save_checkpoint(self.directory.checkpoint)
        self._saved = trainer.global_step

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Record what it is a checkpoint of, in plain values."""
        checkpoint["diffexp"] = {"format": FORMAT, "config": self.config, "metrics_size": self._metrics_size}


def read_checkpoint(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint at `path`, on the CPU.

    Args:
        path: A file that exists.
        config: The configuration that it must belong to.

    Raises:
        UserError: It cannot be read, or belongs to another configuration.
    """
    try:
        checkpoint = cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))
        written, theirs = checkpoint["diffexp"].get("format"), identity(checkpoint["diffexp"]["config"])
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise UserError(
            f"{path} cannot be read as a checkpoint ({path.stat().st_size:,} bytes; {why}). Move it away, and the "
            "run's command starts over."
        ) from error
    if differs := differences(theirs, identity(config)):
        raise UserError(
            f"{path} is a checkpoint of another configuration: it differs in {differs}. Put the run's own "
            "checkpoint back, or move this one away and start over."
        )
    if written != FORMAT:
        raise UserError(
            f"{path} was written by another version of diffexp (checkpoints of format {written}; this one writes "
            f"{FORMAT}). Go on with that version, or move the checkpoint away and start over."
        )
    return checkpoint


def require_same_weights(path: Path, checkpoint: Mapping[str, Any], module: nn.Module) -> None:
    """Raise if the checkpoint's weights are not those of the module, by name and shape.

    Raises:
        UserError: The code has changed since.
    """
    there, here = ({k: tuple(v.shape) for k, v in d.items()} for d in (checkpoint["state_dict"], module.state_dict()))
    if differs := sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key)):
        raise UserError(
            f"{path} was written by another version of the network: {len(differs)} of its weights are named or shaped "
            f"otherwise now, first {differs[0]}. Go on with that version, or move the checkpoint away and start over."
        )
