"""What happens beside training: the status line, validation, sample grids; all of it writes through a MetricsWriter."""

import math
import sys
import time
from abc import ABC, abstractmethod
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


class MetricsWriter:
    """Writes a run's numbers: to metrics.jsonl first, then to every logger, on one axis and at one cadence.

    Attributes:
        final: The last finite value of every metric that is not a training metric.
        images_seen: Images trained on at the last line.
    """

    def __init__(self, directory: RunDirectory, loggers: Sequence[Logger], log_image: LogImage) -> None:
        self.directory, self.loggers, self._log_image = directory, list(loggers), log_image
        self.final: dict[str, float] = dict(directory.record.get("final") or {})
        self.images_seen: int = directory.record.get("images_seen") or 0

    def write(self, images_seen: int, metrics: Mapping[str, float]) -> None:
        """Add one line of metrics at `images_seen`."""
        line = {"images_seen": images_seen, **metrics}
        self.directory.append_metrics(line)
        self.images_seen = images_seen
        self.final |= {
            key: value
            for key, value in metrics.items()
            if not key.startswith(("train/", "time/")) and math.isfinite(value)
        }
        self._for_each_logger(lambda logger: logger.log_metrics(line, images_seen))

    def record(self, **changes: object) -> None:
        """Bring run.json up to date with what was written, and with these entries."""
        self.directory.write_record(images_seen=self.images_seen, final=self.final, **changes)

    def picture(self, images_seen: int, key: str, path: str) -> None:
        """Show the picture at `path` in every logger that takes pictures."""
        self._for_each_logger(lambda logger: self._log_image(logger, key, path, images_seen))

    def _for_each_logger(self, call: Callable[[Logger], None]) -> None:
        """Drops a logger that fails: it is a view, and costs no run."""
        for logger in list(self.loggers):
            try:
                call(logger)
            except Exception as error:
                self.loggers.remove(logger)
                text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                print(f"{type(logger).__name__} failed and is left out from here on: {text}", file=sys.stderr)


def no_images(logger: Logger, key: str, path: str, images_seen: int) -> None:
    """Shows no picture."""


class ProgressMonitor(pl.Callback):
    """Every `every` steps: the mean loss, whether it is finite, the speed; a bar at a terminal, else a status line.

    Raises:
        Diverged: The loss stopped being finite.
    """

    def __init__(self, writer: MetricsWriter, name: str, every: int, status_every: float = 10.0) -> None:
        self.writer, self.name, self.every, self.status_every = writer, name, every, status_every

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._began = self._since = self._said = time.monotonic()
        self._first = self._last = trainer.global_step
        self._busy = 0.0  # seconds of training since the last reading, validation and sampling left out

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Time the step."""
        self._since = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the loss when it is time."""
        self._busy += time.monotonic() - self._since
        step = trainer.global_step
        if step % self.every and step != trainer.max_steps:
            return
        before = time.monotonic()
        module = cast(DiffusionModule, pl_module)
        loss = module.read_loss()  # waits for the device, so its queue counts as training time
        now = time.monotonic()
        speed = (step - self._last) * module.batch_size / max(self._busy + now - before, 1e-9)
        self._last, self._busy = step, 0.0
        images_seen = step * module.batch_size
        self.writer.write(
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


class _WhenDue(pl.Callback, ABC):
    """Acts after steps, and before training, where an interruption may have come first."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Act on the step at which training starts or resumes."""
        self.when_due(trainer, cast(DiffusionModule, pl_module))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Act on the step that has just ended."""
        self.when_due(trainer, cast(DiffusionModule, pl_module))

    @abstractmethod
    def when_due(self, trainer: pl.Trainer, module: DiffusionModule) -> None:
        """Act if it is due at `trainer.global_step`."""


class Validate(_WhenDue):
    """Prediction errors every `every` steps, before the first one too; see also `final_evaluation`.

    Args:
        writer: Where they go.
        held: The held-out draws.
        every: Steps.
        measured: Called with the averaged network, the step and what was measured.
    """

    def __init__(self, writer: MetricsWriter, held: HeldOut, every: int, measured: Measured) -> None:
        self.writer, self.held, self.every, self.measured = writer, held, every, measured

    def when_due(self, trainer: pl.Trainer, module: DiffusionModule) -> None:
        """Validate, the untrained network too."""
        if trainer.global_step % self.every == 0 and trainer.global_step != trainer.max_steps:
            self.measure(module, trainer.global_step)

    def measure(self, module: DiffusionModule, step: int) -> dict[str, float]:
        """Measure the averaged network at this step, and write it down."""
        found = self.held.measure(module.averaged)
        self.writer.write(step * module.batch_size, found)
        self.writer.record()
        self.measured(module.ema.network, step, found)
        return found


class SampleGrids(_WhenDue):
    """A grid of samples every `every` steps; the one at the end is `final_evaluation`'s."""

    def __init__(self, writer: MetricsWriter, samples: Callable[[], Samples], grid: int, every: int) -> None:
        self.writer, self.samples, self.grid, self.every = writer, samples, grid, every

    def when_due(self, trainer: pl.Trainer, module: DiffusionModule) -> None:
        """Draw a grid, except of the untrained network."""
        step = trainer.global_step
        if step and step % self.every == 0 and step != trainer.max_steps:
            images_seen = step * module.batch_size
            path = self.writer.directory.samples / f"{images_seen:012d}.png"
            save_grid(self.samples()(0, self.grid), path)
            self.writer.picture(images_seen, "samples", str(path))


def final_evaluation(
    writer: MetricsWriter, samples: Samples, metric: PreparedMetric, grid: int, images_seen: int
) -> None:
    """The last grid, as it is and without clipping, and the sample metrics."""
    path = writer.directory.samples / "final.png"
    save_grid(samples(0, grid), path)
    writer.picture(images_seen, "samples", str(path))
    if samples.sampler.clip:
        save_grid(samples.unclipped()(0, grid), path.with_name("final_unclipped.png"))
    if found := metric(samples):
        writer.write(images_seen, found)


def _memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB on the GPU"
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    return f"{peak:.1f} GiB"
