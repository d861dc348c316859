"""Trains one run in its directory, from the beginning or from a checkpoint: Lightning's trainer with our callbacks."""

import contextlib
import gc
import os
import platform
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.loggers import Logger

from diffexp.denoiser import Denoiser
from diffexp.errors import UserError
from diffexp.metrics.samples import PreparedMetric
from diffexp.objective import effective_weight
from diffexp.runs.directory import RunDirectory
from diffexp.training.callbacks import (
    Diverged,
    MetricsWriter,
    ProgressMonitor,
    SampleGrids,
    Validate,
    final_evaluation,
    no_images,
)
from diffexp.training.checkpoints import AtomicCheckpoints, Checkpoint, read_checkpoint, require_same_weights
from diffexp.training.data_description import describe_data
from diffexp.training.devices import device_name, resolve_precision, seeded
from diffexp.training.distributed import Group
from diffexp.training.failures import record_failure
from diffexp.training.image_grid import save_grid
from diffexp.training.module import StepLoader
from diffexp.training.samples import Samples
from diffexp.training.setup import Setup
from diffexp.training.signals import Interrupted, Interruption
from diffexp.training.weights import BEST_METRIC, BestWeights, Weights

OpenLoggers: TypeAlias = Callable[[RunDirectory], AbstractContextManager[list[Logger]]]
"""Opens the run's loggers for as long as it trains; a run that raises is shown there as failed."""

LogImage: TypeAlias = Callable[[Logger, str, str, int], None]
"""`log_image(logger, key, path, images_seen)`: shows a picture in a logger that takes pictures."""


@contextlib.contextmanager
def no_loggers(directory: RunDirectory) -> Generator[list[Logger]]:
    """The run's own files are its only record."""
    yield []


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run to be trained.

    Attributes:
        setup: What it computes.
        config: The same as plain values, for config.json, the checkpoints and the loggers.
        directory: Where it is kept.
        seed: Of the initial weights and of all draws.
        max_steps: Training steps in all.
        checkpoint_every: Steps between two checkpoints.
        record: Entries of run.json that are known beforehand.
        device: Where it trains.
        denoiser: A fresh one, `setup.denoiser(seed, device)`, if it has been made already.
        metric: `setup.prepared_metric()` on the device, if it has been made already.
        open_loggers: Beside the run's own files.
        log_image: How a picture gets into such a logger.
    """

    setup: Setup
    config: Mapping[str, Any]
    directory: RunDirectory
    seed: int
    max_steps: int
    device: torch.device
    checkpoint_every: int = 2000
    record: Mapping[str, Any]
    denoiser: Denoiser | None = None
    metric: PreparedMetric | None = None
    open_loggers: OpenLoggers = no_loggers
    log_image: LogImage = no_images

    @property
    def name(self) -> str:
        """For the status line: target, space and seed."""
        return "-".join([*self.directory.choices[:2], f"seed={self.seed}"])


def train(
    job: Job,
    interruption: Interruption,
    group: Group,
    on_failure: Callable[[RunDirectory, Exception], object] = record_failure,
) -> None:
    """Train the run, or go on with it, and record how it ended. The caller holds the run's lock.

    Args:
        job: The run.
        interruption: Of the block of `interruptible` around this call.
        group: Of the run's processes.
        on_failure: Called with the error that ended the run, before it is raised.

    Raises:
        UserError: The directory, or the checkpoint to go on from, is another configuration's, is broken, is longer
            than the run, or began on another kind of device.
        Interrupted: A signal ended it; it is recorded as "interrupted".
        Exception: It failed; that is recorded, with the traceback in traceback.txt.
    """
    directory = job.directory
    _require_same_device(job)
    record = {"status": "running", "error": None, "device": device_name(job.device), "host": platform.node()}
    record |= {"precision": resolve_precision(job.setup.compute.precision, job.device), "pid": os.getpid()}
    record |= {"processes": group.world.size}
    group.on_stuck = lambda error: on_failure(directory, error)
    try:
        directory.open({"images_seen": 0, **directory.record, **job.record, **record}, job.config)
        directory.traceback_file.unlink(missing_ok=True)
        _train(job, interruption, group)
    except Interrupted as interrupted:
        if lost := group.lost():
            on_failure(directory, lost)
            raise lost from interrupted
        with contextlib.suppress(OSError):
            directory.write_record(status="interrupted")
        kept = "its last checkpoint" if interrupted.at_once else "exactly there"
        print(f"{directory.path} was interrupted ({interrupted}); the same command goes on from {kept}", flush=True)
        raise
    except Exception as error:
        if lost := group.lost(patience=2.0):
            on_failure(directory, lost)
            raise lost from error
        on_failure(directory, error)
        traceback.clear_frames(error.__traceback__)  # a reference to the error would keep the network alive
        raise
    finally:
        gc.collect()
        if job.device.type == "cuda":
            torch.cuda.empty_cache()


def _train(job: Job, interruption: Interruption, group: Group) -> None:
    setup, directory, config = job.setup.to(job.device), job.directory, job.config
    batch_size = setup.training.batch_size
    checkpoint = read_checkpoint(directory.checkpoint, config) if directory.checkpoint.exists() else None
    begun = _resume(job, checkpoint)
    group.begin(begun)
    module = setup.module(job.denoiser or setup.denoiser(job.seed, job.device), job.seed, group.world)
    if checkpoint:
        require_same_weights(directory.checkpoint, checkpoint, module)
    del checkpoint
    directory.samples.mkdir(exist_ok=True)
    save_grid(setup.data.reference("heldout", setup.sampling.grid), directory.samples / "data.png")
    metric, held_out = job.metric or setup.prepared_metric(), setup.held_out()
    first, last = setup.times.range(setup.schedule)
    zero_loss, label_noise = setup.zero_loss
    directory.write_record(
        parameters=sum(p.numel() for p in module.denoiser.network.parameters()),
        t_min=first,
        t_max=last,
        clip=bool(setup.sampler.clip),
        loss_scale=module.loss_scale,
        zero_loss=zero_loss,
        label_noise=label_noise,
        effective_weight=vars(effective_weight(setup.objective, setup.schedule, setup.times)),
        data_description=vars(describe_data(setup.data)),
        optimum=held_out.optimum,
    )

    def samples() -> Samples:
        return setup.samples(module.averaged)

    with job.open_loggers(directory) as loggers, quiet(), seeded(0):
        writer = MetricsWriter(directory, loggers, job.log_image)
        best = BestWeights(directory.best_weights, config)
        validate = Validate(writer, held_out, setup.validation.every, best)
        callbacks: list[pl.Callback] = [
            ProgressMonitor(writer, job.name, setup.training.log_every),
            Checkpoint(directory, job.checkpoint_every, config, interruption),
            validate,
        ]
        if setup.sampling.every:
            callbacks.append(SampleGrids(writer, samples, setup.sampling.grid, setup.sampling.every))
        trainer = make_trainer(setup, job.device, max_steps=job.max_steps, callbacks=callbacks)
        group.join(job.device.type)
        try:
            trainer.fit(
                module, datamodule=StepLoader(job.max_steps), ckpt_path=str(directory.checkpoint) if begun else None
            )
        except Interrupted:
            writer.record(status="interrupted")  # before the loggers close
            raise
        except Diverged as reason:
            print(f"{job.name} diverged: {reason}", flush=True)
            writer.record(status="diverged")
            return
        module.to(job.device)  # Lightning moves it to the CPU at its end
        value = validate.measure(module, trainer.global_step)[BEST_METRIC]
        Weights(module.ema.network.state_dict(), trainer.global_step, value).save(directory.final_weights, config)
        final_evaluation(writer, samples(), metric, setup.sampling.grid, trainer.global_step * batch_size)
        writer.record(status="done", nfe=setup.sampler.nfe)


def _resume(job: Job, checkpoint: Mapping[str, Any] | None) -> int:
    """The step to go on from; what was written after it is removed."""
    directory = job.directory
    begun, size = (checkpoint["global_step"], checkpoint["diffexp"]["metrics_size"]) if checkpoint else (0, 0)
    if begun > job.max_steps:
        raise UserError(too_short(directory, job.max_steps, begun))
    if directory.metrics_size() or directory.record["images_seen"]:
        print(f"going on at step {begun:,}" if begun else "no checkpoint yet: starting over", flush=True)
    directory.remove_partial_files()
    if lost := directory.truncate_metrics(size):
        print(
            f"{directory.metrics_file} has lost {lost:,} bytes since that checkpoint: the curves have a gap there",
            file=sys.stderr,
            flush=True,
        )
    if not begun:
        directory.best_weights.unlink(missing_ok=True)
    directory.write_record(images_seen=begun * job.setup.training.batch_size)
    return begun


def too_short(directory: RunDirectory, max_steps: int, trained: int) -> str:
    """What to say where a run would have to go back: it would be called done with the weights of another length."""
    return (
        f"trainer.max_steps={max_steps}: {directory.path} has trained {trained:,} steps already, and no run goes back. "
        f"Set {trained} or more, or another study=."
    )


def _require_same_device(job: Job) -> None:
    """A run goes on where it began: other devices draw other numbers, other precisions round otherwise."""
    record, directory = job.directory.record, job.directory
    if "device" not in record or not (record.get("images_seen") or directory.metrics_size()):
        return
    precision = resolve_precision(job.setup.compute.precision, job.device)
    began = "cpu" if record.get("device") == "cpu" else "cuda"
    if (began, record.get("precision")) != (job.device.type, precision):
        raise UserError(
            f"{directory.path} began on {began} in precision {record.get('precision')} and cannot go on on "
            f"{job.device.type} in {precision}: it would see other noise. Set trainer.accelerator={began}, or another "
            "study=."
        )


def make_trainer(setup: Setup, device: torch.device, **arguments: Any) -> pl.Trainer:
    """Lightning's trainer, with what is ours to decide: one device, no logger, checkpoint or bar of its own."""
    ours: dict[str, Any] = {
        "accelerator": device.type,
        "devices": [device.index] if device.type == "cuda" else 1,
        "logger": False,
        # From a scheduler's variables Lightning would take ranks and signal handlers, and requeue by itself. Of several
        # processes each has a Trainer that knows of no other: with ranks, SIGTERM left runs hanging, and every step
        # reads a tensor to look for one.
        "plugins": [AtomicCheckpoints(), LightningEnvironment()],
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": -1,
    }
    return pl.Trainer(**{**ours, **setup.trainer, **arguments})


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Silences Lightning's advice that does not apply: steps are numbers, not batches to be loaded by workers."""
    import logging

    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for advice in (
            ".*does not have many workers.*",
            ".*exists and is not empty.*",
            ".*in eval mode at the start of training.*",  # the averaged network always is
            ".*your dataloader is not resumable.*",  # the step decides which images are used
            ".*treespec, LeafSpec.*",  # Lightning's own use of torch
            ".*`srun` command is available.*",  # a run is one process wherever it runs
        ):
            warnings.filterwarnings("ignore", message=advice)
        yield
    logger.setLevel(level)
