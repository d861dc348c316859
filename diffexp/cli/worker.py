"""What every rank but 0 does: its share of each step of the run that rank 0 trains."""

import traceback
from collections.abc import Sequence
from typing import cast

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig

from diffexp.cli import build
from diffexp.cli.fit import quiet, settings
from diffexp.cli.hydra_app import run_hydra_app
from diffexp.cli.identity import chosen_files, plain, run_directory
from diffexp.cli.ranks import Follower, Place, silent
from diffexp.training.checkpoints import read_checkpoint
from diffexp.training.module import StepLoader
from diffexp.training.parallel import Share


def main(argv: Sequence[str], here: Place) -> int:
    """Work until rank 0 says that it is over; what goes wrong is told by rank 0."""
    follower = Follower(here)

    def task(cfg: DictConfig) -> None:
        try:
            assist(cfg, follower)
        except Exception as error:
            follower.fail(f"failed: {type(error).__name__}: {error}", traceback.format_exc())

    with silent():
        return run_hydra_app(task, "train", argv)


def assist(cfg: DictConfig, follower: Follower) -> None:
    """Train beside rank 0; nothing is written."""
    parts, where = build.problem(cfg, chosen_files()), build.device(cfg)
    directory = run_directory(cfg, chosen_files())
    if follower.begun:
        step = read_checkpoint(directory.checkpoint, plain(cfg))["global_step"]
        if step != follower.begun:
            raise ValueError(
                f"{directory.checkpoint} is of step {follower.begun} on the machine of rank 0 and of step {step} here: "
                "the network file system is late. Type the command again."
            )
    parts = parts.to(where)
    zero_loss, _ = build.zero_answer(parts)
    module = build.module(cfg, parts, where, zero_loss, Share(follower.place.rank, follower.place.world_size))
    with quiet(), build.seeded(0):
        trainer = cast(pl.Trainer, instantiate(cfg.trainer, **settings(where)))
        follower.join_group(where.type)
        ckpt_path = str(directory.checkpoint) if follower.begun else None
        trainer.fit(module, datamodule=StepLoader(trainer.max_steps), ckpt_path=ckpt_path)
    follower.wait_for_end()
