"""The training of one run: Lightning's trainer with our callbacks, in a claimed directory."""

import contextlib
import warnings
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from omegaconf import DictConfig
from pytorch_lightning.callbacks import ModelCheckpoint

from diffexp.apps import build, loggers
from diffexp.apps.train import plain
from diffexp.callbacks import Diverged, Journal, Sample, Validate, Watch
from diffexp.draws import stream_key
from diffexp.files import replacing
from diffexp.module import DiffusionModule, StepLoader
from diffexp.objective import effective_weight
from diffexp.pictures import save_grid
from diffexp.runs import RunDirectory, Status
from diffexp.sampling import Samples
from diffexp.validation import HeldOut


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent, and hold nothing but tensors and plain values."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write beside `path`, then rename."""
        with replacing(Path(path)) as part:
            torch.save(checkpoint, part)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read without unpickling."""
        return torch.load(path, map_location="cpu", weights_only=True)


class Identity(pl.Callback):
    """Writes into each checkpoint what it is a checkpoint of."""

    def __init__(self, identity: dict[str, Any]) -> None:
        self.identity = identity

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Plain values only."""
        checkpoint["diffexp"] = self.identity


def fit(cfg: DictConfig, parts: build.Problem, where: torch.device, directory: RunDirectory) -> Status:
    """Train, validate, sample, record. Returns how it ended: "done" or "diverged"."""
    data = parts.data.to(where)
    batch_size, config = int(cfg.training.batch_size), plain(cfg)
    held = HeldOut(data, parts.objective, parts.schedule, parts.times, cfg.validation.count, cfg.validation.batch_size)
    denoiser = build.denoiser(cfg, parts, where)
    module = DiffusionModule(
        denoiser,
        parts.objective,
        parts.times,
        data,
        seed=cfg.seed,
        optimizer=instantiate(cfg.optimizer, _convert_="all"),
        batch_size=batch_size,
        warmup_steps=cfg.training.warmup_steps,
        ema_decay=cfg.training.ema_decay,
        loss_scale=held.zero_loss() if cfg.objective.normalize else 1.0,
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
        precision="bf16" if denoiser.autocast else "32",
        zero_loss=held.zero_loss(),
        label_noise=held.label_noise(),
        effective_weight=vars(effective_weight(parts.objective, parts.schedule, parts.times)),
    )
    directory.samples.mkdir(exist_ok=True)
    save_grid(data.reference("heldout", int(cfg.sampling.grid)), directory.samples / "data.png")
    metric = build.prepared_metric(cfg, parts, where)

    def samples(trained: DiffusionModule) -> Samples:
        return Samples(trained.averaged, parts.sampler, data.image_shape, where)

    with loggers.opened(cfg.logger, directory, config) as opened:
        journal = Journal(directory, opened, loggers.log_image)
        name = "-".join([str(directory.choices[0]), str(directory.choices[1]), f"seed={cfg.seed}"])
        callbacks: list[pl.Callback] = [
            Watch(journal, name, cfg.training.log_every),
            Validate(journal, held, cfg.validation.every),
            Sample(journal, samples, metric, cfg.sampling.grid, cfg.sampling.every),
            ModelCheckpoint(
                directory.checkpoints,
                filename="last",
                every_n_train_steps=cfg.checkpoint.every_n_steps,
                enable_version_counter=False,
            ),
            Identity({"config": config, "data_std": data.std, "image_shape": list(data.image_shape)}),
        ]
        status: Status = "done"
        with _quiet(), build.seeded(stream_key(cfg.seed, 0, "dropout")):
            trainer = cast(
                pl.Trainer,
                instantiate(
                    cfg.trainer,
                    logger=False,
                    callbacks=callbacks,
                    plugins=[AtomicCheckpoints()],
                    enable_progress_bar=False,
                    enable_model_summary=False,
                    num_sanity_val_steps=0,
                ),
            )
            checkpoint = directory.checkpoints / "last.ckpt"
            try:
                trainer.fit(
                    module,
                    datamodule=StepLoader(trainer.max_steps),
                    ckpt_path=str(checkpoint) if checkpoint.exists() else None,
                )
                trainer.save_checkpoint(checkpoint)
            except Diverged as reason:
                status = "diverged"
                print(f"{name} diverged: {reason}", flush=True)
        directory.write_record(status=status, final=journal.final)
    return status


@contextlib.contextmanager
def _quiet() -> Any:
    """Lightning's advice that does not apply: steps are numbers, not batches to be loaded by workers."""
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
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
