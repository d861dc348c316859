"""What every rank but 0 does: its share of each step of the run that rank 0 trains."""

import traceback
from collections.abc import Sequence

from omegaconf import DictConfig

from diffexp.cli import build
from diffexp.cli.hydra_app import run_hydra_app
from diffexp.cli.identity import chosen_files, plain, run_directory
from diffexp.training.checkpoints import read_checkpoint
from diffexp.training.devices import seeded
from diffexp.training.module import StepLoader
from diffexp.training.parallel import Share
from diffexp.training.ranks import Follower, Place, silent
from diffexp.training.train import make_trainer, quiet


def main(argv: Sequence[str], here: Place) -> int:
    """Work until rank 0 ends the run; rank 0 reports what goes wrong."""
    follower = Follower(here)

    def task(cfg: DictConfig) -> None:
        try:
            work(cfg, follower)
        except Exception as error:
            follower.fail(f"failed: {type(error).__name__}: {error}", traceback.format_exc())

    with silent():
        return run_hydra_app(task, "train", argv)


def work(cfg: DictConfig, follower: Follower) -> None:
    """Train beside rank 0; nothing is written."""
    device = build.device(cfg)
    parts = build.setup(cfg, chosen_files()).to(device)
    directory = run_directory(cfg, chosen_files())
    if follower.begun:
        step = read_checkpoint(directory.checkpoint, plain(cfg))["global_step"]
        if step != follower.begun:
            raise ValueError(
                f"{directory.checkpoint} is of step {follower.begun} on the machine of rank 0 and of step {step} here: "
                "the network file system is late. Type the command again."
            )
    share = Share(follower.place.rank, follower.place.world_size)
    module = parts.module(parts.denoiser(int(cfg.seed), device), int(cfg.seed), share)
    with quiet(), seeded(0):
        trainer = make_trainer(parts, device, max_steps=int(cfg.trainer.max_steps))
        follower.join_group(device.type)
        ckpt_path = str(directory.checkpoint) if follower.begun else None
        trainer.fit(module, datamodule=StepLoader(int(cfg.trainer.max_steps)), ckpt_path=ckpt_path)
    follower.wait_for_end()
