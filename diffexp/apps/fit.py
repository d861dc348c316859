"""The training of one run: Lightning's trainer with our callbacks, in a claimed directory."""

import contextlib
import warnings
from typing import Any, cast

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig

from diffexp.apps import build, loggers
from diffexp.apps.checkpoints import AtomicCheckpoints, Checkpoint, read_checkpoint
from diffexp.apps.record import plain
from diffexp.callbacks import Diverged, Journal, Sample, Validate, Watch, judge
from diffexp.module import DiffusionModule, StepLoader
from diffexp.objective import effective_weight, without_learning
from diffexp.pictures import save_grid
from diffexp.runs import RunDirectory
from diffexp.sampling import Samples


def fit(cfg: DictConfig, parts: build.Problem, where: torch.device, directory: RunDirectory) -> None:
    """Train, validate, sample, and record how it ended.

    Raises:
        ValueError: The checkpoint to go on from is broken, or another configuration's.
    """
    parts, config = parts.to(where), plain(cfg)
    checkpoint = directory.checkpoints / "last.ckpt"
    begun = read_checkpoint(checkpoint, config)["global_step"] if checkpoint.exists() else 0
    batch_size = int(cfg.training.batch_size)
    if directory.record["images_seen"]:
        print(f"going on at step {begun:,}" if begun else "no checkpoint yet: starting over", flush=True)
    directory.forget_after(begun * batch_size if begun else -1)
    denoiser = build.denoiser(cfg, parts, where)
    moment = parts.data.heldout(parts.data.size("heldout")).square().mean().item()
    zero_loss, label_noise = without_learning(parts.objective, parts.schedule, parts.times, moment)
    module = DiffusionModule(
        denoiser,
        parts.objective,
        parts.times,
        parts.data,
        seed=cfg.seed,
        optimizer=build.optimizer(cfg),
        batch_size=batch_size,
        warmup_steps=cfg.training.warmup_steps,
        ema_decay=cfg.training.ema_decay,
        loss_scale=zero_loss if cfg.objective.normalize else 1.0,
    )
    if build.compiles(cfg, where):
        for network in (denoiser.network, module.ema.network):
            cast(Any, network).compile()
    first, last = parts.times.range(parts.schedule)
    directory.write_record(
        parameters=sum(p.numel() for p in denoiser.network.parameters()),
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
        callbacks: list[pl.Callback] = [
            Watch(journal, name, cfg.training.log_every),
            Validate(journal, held, cfg.validation.every),
            Checkpoint(checkpoint, cfg.checkpoint.every_n_steps, config),
        ]
        if cfg.sampling.every:
            callbacks.append(Sample(journal, samples, cfg.sampling.grid, cfg.sampling.every))
        trainer = cast(pl.Trainer, instantiate(cfg.trainer, **settings(where), callbacks=callbacks))
        try:
            trainer.fit(module, datamodule=StepLoader(trainer.max_steps), ckpt_path=str(checkpoint) if begun else None)
        except Diverged as reason:
            print(f"{name} diverged: {reason}", flush=True)
            directory.write_record(status="diverged")
            return
        if trainer.global_step < trainer.max_steps:
            directory.write_record(status="interrupted")
            return
        module.to(where)  # Lightning has put it back on the CPU
        judge(journal, samples(), metric, cfg.sampling.grid, trainer.global_step * batch_size)
        directory.write_record(status="done")


def settings(where: torch.device) -> dict[str, Any]:
    """What of the trainer is ours to say."""
    return {
        "accelerator": where.type,
        "devices": [where.index] if where.type == "cuda" else 1,
        "logger": False,
        # From a scheduler's variables Lightning would take ranks and signal handlers; one run is one process.
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
        ):
            warnings.filterwarnings("ignore", message=advice)
        yield
    logger.setLevel(level)
