"""`diffexp sample run=...`: images from trained runs."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from diffexp.errors import UserError


def main(argv: Sequence[str]) -> int:
    """The command's exit code."""
    from diffexp.cli.run_config import run_on_trained

    return run_on_trained(sample, "sample", argv, ("sampler",), ("sampling",), check)


def check(cfg: DictConfig) -> None:
    """Require settings with which images can be drawn and written.

    Raises:
        UserError: `out` is neither .png nor .npz, `count` is no positive number, or there are no such `weights`.
    """
    from diffexp.cli.run_config import require_one_output
    from diffexp.cli.schema import validate_settings

    validate_settings(cfg)
    require_one_output(cfg)
    if cfg.out is not None and Path(cfg.out).suffix not in (".png", ".npz"):
        raise UserError(f"out={cfg.out}: images are written as a grid to a .png, or as uint8 `images` to an .npz.")
    if not isinstance(cfg.count, int) or cfg.count < 1:
        raise UserError(f"count={cfg.count}: give a positive number of images.")


def sample(cfg: DictConfig) -> None:
    """Draw `cfg.count` images and write them."""
    from diffexp.cli.run_config import output

    out = output(cfg, "samples/drawn.png")

    import numpy as np

    from diffexp.cli.load_run import load_run
    from diffexp.data.pixels import to_uint8
    from diffexp.io.files import replacing
    from diffexp.training.image_grid import save_grid

    run = load_run(cfg)
    images = run.samples()(0, cfg.count)
    if out.suffix == ".png":
        save_grid(images, out)
    else:
        with replacing(out) as part, part.open("wb") as file:
            np.savez_compressed(file, images=to_uint8(images).cpu().numpy())
    print(f"{out}: {cfg.count} images after {run.step:,} steps, {run.parts.sampler.nfe} network calls each")
