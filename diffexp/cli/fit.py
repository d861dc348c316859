"""The training of one run: Lightning's trainer with our callbacks, in a claimed directory."""

import contextlib
import sys
import warnings
from collections.abc import Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig

from diffexp.cli import build, loggers
from diffexp.cli.identity import plain
from diffexp.cli.ranks import Leader
from diffexp.objective import effective_weight
from diffexp.runs.directory import RunDirectory
from diffexp.training.callbacks import Diverged, Journal, Sample, Validate, Watch, judge
from diffexp.training.checkpoints import AtomicCheckpoints, Checkpoint, read_checkpoint, refuse_other_weights
from diffexp.training.image_grid import save_grid
from diffexp.training.module import StepLoader
from diffexp.training.parallel import Share
from diffexp.training.samples import Samples
from diffexp.training.signals import Interrupted, Interruption
from diffexp.training.weights import BEST_METRIC, BestWeights, Weights


def fit(
    cfg: DictConfig,
    parts: build.Problem,
    where: torch.device,
    directory: RunDirectory,
    interruption: Interruption,
    leader: Leader,
) -> None:
    """Train, validate, sample, and record how it ended.

    Raises:
        ValueError: The checkpoint to go on from is broken, or another configuration's.
        Interrupted: A signal ended it, with all steps saved.
    """
    parts, config = parts.to(where), plain(cfg)
    batch_size = int(cfg.training.batch_size)
    checkpoint = read_checkpoint(directory.checkpoint, config) if directory.checkpoint.exists() else None
    begun = _go_on(directory, checkpoint, batch_size)
    leader.begin(begun)
    zero_loss, label_noise = build.zero_answer(parts)
    module = build.module(cfg, parts, where, zero_loss, Share(leader.place.rank, leader.place.world_size))
    if checkpoint:
        refuse_other_weights(directory.checkpoint, checkpoint, module)
    del checkpoint
    first, last = parts.times.range(parts.schedule)
    directory.write_record(
        parameters=sum(p.numel() for p in module.denoiser.network.parameters()),
        t_min=first,
        t_max=last,
        clip=bool(parts.sampler.clip),
        loss_scale=module.loss_scale,
        zero_loss=zero_loss,
        label_noise=label_noise,
        effective_weight=vars(effective_weight(parts.objective, parts.schedule, parts.times)),
    )
    directory.samples.mkdir(exist_ok=True)
    save_grid(parts.data.reference("heldout", int(cfg.sampling.grid)), directory.samples / "data.png")
    metric = build.prepared_metric(cfg, parts, where)
    held = parts.held_out(cfg.validation, cfg.sampling.t_start)
    directory.write_record(optimum=held.optimum)

    def samples() -> Samples:
        return parts.samples(module.averaged)

    with loggers.opened(cfg.logger, directory, config) as opened, quiet(), build.seeded(0):
        journal = Journal(directory, opened, loggers.log_image)
        name = "-".join([str(directory.choices[0]), str(directory.choices[1]), f"seed={cfg.seed}"])
        best = BestWeights(directory.best_weights, config)
        validate = Validate(journal, held, cfg.validation.every, best)
        callbacks: list[pl.Callback] = [
            Watch(journal, name, cfg.training.log_every),
            Checkpoint(directory, cfg.checkpoint.every_n_steps, config, interruption),
            validate,
        ]
        if cfg.sampling.every:
            callbacks.append(Sample(journal, samples, cfg.sampling.grid, cfg.sampling.every))
        trainer = cast(pl.Trainer, instantiate(cfg.trainer, **settings(where), callbacks=callbacks))
        leader.join_group(where.type)
        try:
            trainer.fit(
                module, datamodule=StepLoader(trainer.max_steps), ckpt_path=str(directory.checkpoint) if begun else None
            )
        except Interrupted:
            directory.write_record(status="interrupted")  # before the loggers take their leave
            raise
        except Diverged as reason:
            print(f"{name} diverged: {reason}", flush=True)
            directory.write_record(status="diverged")
            return
        module.to(where)  # Lightning has put it back on the CPU
        value = validate.measure(module, trainer.global_step)[BEST_METRIC]
        Weights(module.ema.network.state_dict(), trainer.global_step, value).save(directory.final_weights, config)
        judge(journal, samples(), metric, cfg.sampling.grid, trainer.global_step * batch_size)
        directory.write_record(status="done", nfe=parts.sampler.nfe)
    leader.finish()


def _go_on(directory: RunDirectory, checkpoint: Mapping[str, Any] | None, batch_size: int) -> int:
    """The step to go on from, with everything forgotten that came after it."""
    begun, size = (checkpoint["global_step"], checkpoint["diffexp"]["metrics_size"]) if checkpoint else (0, 0)
    if directory.record["images_seen"]:
        print(f"going on at step {begun:,}" if begun else "no checkpoint yet: starting over", flush=True)
    directory.remove_parts()
    if lost := directory.forget_metrics_after(size):
        print(
            f"{directory.metrics_file} has lost {lost:,} bytes since that checkpoint: what they held is missing from "
            "the run's curves",
            file=sys.stderr,
            flush=True,
        )
    if not begun:
        directory.best_weights.unlink(missing_ok=True)
    directory.write_record(images_seen=begun * batch_size)
    return begun


def settings(where: torch.device) -> dict[str, Any]:
    """What of the trainer is ours to say."""
    return {
        "accelerator": where.type,
        "devices": [where.index] if where.type == "cuda" else 1,
        "logger": False,
        # From a scheduler's variables Lightning would take ranks and signal handlers, and requeue by itself. Of several
        # processes each has a Trainer that knows of no other: with ranks of its own it stalls at every step.
        "plugins": [AtomicCheckpoints(), LightningEnvironment()],
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }


@contextlib.contextmanager
def quiet() -> Any:
    """Lightning's advice that does not apply: steps are numbers, not batches to be loaded by workers."""
    import logging

    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for advice in (
            ".*does not have many workers.*",
            ".*exists and is not empty.*",
            ".*in eval mode at the start of training.*",  # the averaged network always is
            ".*your dataloader is not resumable.*",  # the step says which images are seen
            ".*treespec, LeafSpec.*",  # Lightning's own use of torch
            ".*`srun` command is available.*",  # a run is one process wherever it runs
        ):
            warnings.filterwarnings("ignore", message=advice)
        yield
    logger.setLevel(level)
