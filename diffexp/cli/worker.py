"""Every rank but 0: its share of each step of the run that rank 0 trains."""

from collections.abc import Sequence

from omegaconf import DictConfig

from diffexp.cli import build
from diffexp.cli.hydra_app import run_hydra_app
from diffexp.cli.identity import chosen_files, plain, run_directory
from diffexp.training.checkpoints import read_checkpoint
from diffexp.training.devices import seeded
from diffexp.training.distributed import Group, World, silent_worker
from diffexp.training.module import StepLoader
from diffexp.training.train import make_trainer, quiet


def main(argv: Sequence[str], world: World) -> int:
    """Work until rank 0 ends the run; rank 0 reports what goes wrong."""
    group = Group(world)

    def task(cfg: DictConfig) -> None:
        try:
            work(cfg, group, begun)
        except Exception as error:
            group.fail(error)

    with silent_worker():
        begun = group.wait_for_begin()
        return run_hydra_app(task, "train", argv)


def work(cfg: DictConfig, group: Group, begun: int) -> None:
    """Train beside rank 0 from step `begun`; nothing is written."""
    device = build.device(cfg)
    parts = build.setup(cfg, chosen_files()).to(device)
    checkpoint = run_directory(cfg, chosen_files()).checkpoint
    if begun:
        step = read_checkpoint(checkpoint, plain(cfg))["global_step"]
        if step != begun:
            raise RuntimeError(
                f"{checkpoint} is of step {begun} on the machine of rank 0 and of step {step} here: the network file "
                "system is late. Repeat the command."
            )
    module = parts.module(parts.denoiser(int(cfg.seed), device), int(cfg.seed), group.world)
    with quiet(), seeded(0):
        trainer = make_trainer(parts, device, max_steps=int(cfg.trainer.max_steps))
        group.join(device.type)
        trainer.fit(module, datamodule=StepLoader(trainer.max_steps), ckpt_path=str(checkpoint) if begun else None)
    group.wait_for_end()
