"""What happens beside training: the status line, validation, samples. All of it speaks through a Journal."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import nn

from diffexp.io.progress import clock
from diffexp.metrics.samples import PreparedMetric
from diffexp.runs.directory import RunDirectory
from diffexp.training.image_grid import save_grid
from diffexp.training.module import DiffusionModule
from diffexp.training.samples import Samples
from diffexp.training.validation import HeldOut

LogImage: TypeAlias = Callable[[Logger, str, str, int], None]
"""`log_image(logger, key, path, images_seen)`: how a picture reaches a logger, if it takes pictures."""


Measured: TypeAlias = Callable[[nn.Module, int, Mapping[str, float]], None]


class Diverged(Exception):
    """The loss is no longer a finite number."""


class Journal:
    """Where a run's numbers go: metrics.jsonl first, then every logger, on one axis and one cadence.

    Attributes:
        final: The last finite value of every metric that is not a training metric.
    """

    def __init__(self, directory: RunDirectory, loggers: Sequence[Logger], log_image: LogImage) -> None:
        self.directory, self.loggers, self._log_image = directory, list(loggers), log_image
        self.final: dict[str, float] = dict(directory.record.get("final") or {})

    def write(self, images_seen: int, metrics: Mapping[str, float]) -> None:
        """One line of metrics at `images_seen`."""
        line = {"images_seen": images_seen, **metrics}
        self.directory.append_metrics(line)
        self.final |= {
            key: value
            for key, value in metrics.items()
            if not key.startswith(("train/", "time/")) and math.isfinite(value)
        }
        self.directory.write_record(images_seen=images_seen, final=self.final)
        self._tell(lambda logger: logger.log_metrics(line, images_seen))

    def picture(self, images_seen: int, key: str, path: str) -> None:
        """Show the picture at `path` in every logger that takes pictures."""
        self._tell(lambda logger: self._log_image(logger, key, path, images_seen))

    def _tell(self, what: Callable[[Logger], None]) -> None:
        """A logger that fails is told no more; it is a view, and costs no run."""
        for logger in list(self.loggers):
            try:
                what(logger)
            except Exception as error:
                self.loggers.remove(logger)
                said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                print(f"{type(logger).__name__} failed and is left out from here on: {said}", file=sys.stderr)


class Watch(pl.Callback):
    """Every `every` steps: the mean loss, whether it is finite, the speed; a bar at a terminal, else a status line.

    Raises:
        Diverged: The loss stopped being finite.
    """

    def __init__(self, journal: Journal, name: str, every: int, status_every: float = 10.0) -> None:
        self.journal, self.name, self.every, self.status_every = journal, name, every, status_every

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._began = self._since = self._said = time.monotonic()
        self._first = self._last = trainer.global_step
        self._busy = 0.0  # seconds of training since the last reading, validation and sampling left out

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Training goes on."""
        self._since = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the loss when it is time."""
        self._busy += time.monotonic() - self._since
        step = trainer.global_step
        if step % self.every and step != trainer.max_steps:
            return
        asked = time.monotonic()
        module = cast(DiffusionModule, pl_module)
        loss = module.read_loss()  # waits for the device, so its queue counts as training time
        now = time.monotonic()
        speed = (step - self._last) * module.batch_size / max(self._busy + now - asked, 1e-9)
        self._last, self._busy = step, 0.0
        images_seen = step * module.batch_size
        self.journal.write(
            images_seen,
            {"train/loss": loss, "time/images_per_second": speed, "time/elapsed": now - self._began},
        )
        if not math.isfinite(loss):
            raise Diverged(f"the training loss is {loss} at step {step}")
        if now - self._said >= self.status_every or step == trainer.max_steps or sys.stderr.isatty():
            self._said = now
            self._say(trainer, images_seen, loss, speed, now)

    def _say(self, trainer: pl.Trainer, images_seen: int, loss: float, speed: float, now: float) -> None:
        step, total = trainer.global_step, int(trainer.max_steps)
        left = (now - self._began) / max(step - self._first, 1) * (total - step)
        line = (
            f"{self.name}  {100 * step / total:3.0f} %  images {images_seen:,}  loss {loss:.4g}  "
            f"{speed:,.0f} images/s  {_memory(trainer.strategy.root_device)}  ETA {clock(left)}"
        )
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="\n" if step == total else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


class Validate(pl.Callback):
    """Belief errors every `every` steps, the untrained network's included; those at the end are `judge`'s.

    Args:
        journal: Takes them.
        held: Measures them.
        every: Steps.
        measured: Called with the averaged network, the step and what was measured.
    """

    def __init__(self, journal: Journal, held: HeldOut, every: int, measured: Measured) -> None:
        self.journal, self.held, self.every, self.measured = journal, held, every, measured

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What the network believes before training, or where it was interrupted before it could be asked."""
        self._when_time(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Validate when it is time."""
        self._when_time(trainer, pl_module)

    def _when_time(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step % self.every == 0 and trainer.global_step != trainer.max_steps:
            self.measure(cast(DiffusionModule, pl_module), trainer.global_step)

    def measure(self, module: DiffusionModule, step: int) -> dict[str, float]:
        """What is measured at this step, once it is told."""
        found = self.held.measure(module.averaged)
        self.journal.write(step * module.batch_size, found)
        self.measured(module.ema.network, step, found)
        return found


class Sample(pl.Callback):
    """A grid of samples every `every` steps; the one at the end is `judge`'s."""

    def __init__(self, journal: Journal, samples: Callable[[], Samples], grid: int, every: int) -> None:
        self.journal, self.samples, self.grid, self.every = journal, samples, grid, every

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The grid that an interruption has left out."""
        self._when_time(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw when it is time."""
        self._when_time(trainer, pl_module)

    def _when_time(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = trainer.global_step
        if step and step % self.every == 0 and step != trainer.max_steps:
            images_seen = step * cast(DiffusionModule, pl_module).batch_size
            path = self.journal.directory.samples / f"{images_seen:012d}.png"
            save_grid(self.samples()(0, self.grid), path)
            self.journal.picture(images_seen, "samples", str(path))


def judge(journal: Journal, samples: Samples, metric: PreparedMetric, grid: int, images_seen: int) -> None:
    """The last grid, as it is and without clipping, and the sample metrics."""
    path = journal.directory.samples / "final.png"
    save_grid(samples(0, grid), path)
    journal.picture(images_seen, "samples", str(path))
    if samples.sampler.clip:
        save_grid(samples.unclipped()(0, grid), path.with_name("final_unclipped.png"))
    if found := metric(samples):
        journal.write(images_seen, found)


def _memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB on the GPU"
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    return f"{peak:.1f} GiB"
