"""What `diffexp evaluate diagnostics=...` finds out about a run beside its beliefs and samples."""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffexp.cli.load_run import Trained
from diffexp.draws import Draws
from diffexp.errors import UserError
from diffexp.gradients.page import noise_scale, page
from diffexp.gradients.statistics import BandGradients, GradientStatistics, gradients_by_band
from diffexp.io.files import write_text

_IMAGES = 4096  # of the training set at most, from which the images are drawn


class Diagnostics(ABC):
    """Something to find out about a run."""

    @abstractmethod
    def __call__(self, run: Trained, folder: Path) -> dict[str, Any]:
        """Print what was found, write pages into `folder`, and return it for evaluation.json."""


@dataclass(frozen=True)
class Nothing(Diagnostics):
    """Not asked for."""

    def __call__(self, run: Trained, folder: Path) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Gradients(Diagnostics):
    """The training gradient per band of log-SNR (see `diffexp.gradients.statistics`), as a table and as gradients.html.

    Norms are of the loss that the optimiser sees: divided by the run's loss scale. The loss and the times are the
    run's own, the images are training images, the network has the averaged weights and no dropout.

    Attributes:
        batches: Independent batches per band.
        batch_size: Images in each.
        fresh: Take the initial weights instead; a function of the seed, alike for every target.

    Raises:
        UserError: There are too few batches to tell signal from noise, or no images.
    """

    batches: int = 32
    batch_size: int = 128
    fresh: bool = False

    def __post_init__(self) -> None:
        for key, least, example in (("batches", 3, 32), ("batch_size", 1, 128)):
            value: object = getattr(self, key)
            if not isinstance(value, int) or value < least:
                raise UserError(f"must be a whole number, {least} or more, for example {example}.")
        if self.fresh not in (True, False):
            raise UserError("must be true or false.")

    def __call__(self, run: Trained, folder: Path) -> dict[str, Any]:
        denoiser, data = run.parts.denoiser(int(run.cfg.seed), run.device), run.parts.data
        if not self.fresh:
            denoiser.network.load_state_dict(run.denoiser.network.state_dict())
        x0 = data.batch(Draws(0, data.device), 0, min(_IMAGES, data.size("train")))
        loss_scale = float(run.record.get("loss_scale") or 1.0)
        found = gradients_by_band(
            denoiser,
            run.parts.objective,
            x0,
            run.parts.times,
            batches=self.batches,
            batch_size=self.batch_size,
            loss_scale=loss_scale,
        )
        weights = "fresh" if self.fresh else f"after {run.step:,} steps"
        named = ", ".join(str(run.record.get(key, "")) for key in ("target", "space", "weighting", "schedule", "data"))
        _print(f"Training gradient of {named}, weights {weights}", found)
        file = folder / "gradients.html"
        write_text(file, page(f"{named}, weights {weights}", found, int(run.cfg.training.batch_size)))
        print(file)
        told = {"weights": "fresh" if self.fresh else "trained", "loss_scale": loss_scale}
        return {"gradients": {**told, **_record(found)}}


def _record(found: BandGradients) -> dict[str, Any]:
    """As it stands in evaluation.json, with what follows from it."""
    entries = dataclasses.asdict(found)
    for entry, band in zip([entries["whole"], *entries["bands"]], [found.whole, *found.bands], strict=True):
        entry |= {"norm": band.norm, "noise_scale": band.noise_scale}
    return entries


def _print(title: str, found: BandGradients) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    labelled = found.whole.label_noise > 0
    table = Table("log-SNR", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("times", "norm", "variance", *(["label noise"] if labelled else []), "noise scale", "share"):
        table.add_column(name, justify="right")

    def cells(band: GradientStatistics) -> list[str]:
        norm = f"{band.norm:.3g}" if band.resolved else "-"
        label = [f"{100 * band.label_noise:.4g} %"] if labelled else []
        start = [f"{100 * band.probability:.1f} %", norm, f"{band.variance:.3g}"]
        return [*start, *label, noise_scale(band), f"{100 * band.share:.1f} %"]

    for band in found.bands:
        table.add_row(f"{band.low:g} to {band.high:g}", *cells(band))
    table.add_section()
    table.add_row("all", *cells(found.whole))
    console = Console()
    console.print(Text(title, style="bold"))
    console.print(table)
    console.print(
        Text(
            "norm: of the mean gradient; -: lost in noise. variance: of one image's gradient. noise scale: variance / "
            "norm^2, the batch size at which noise equals signal. share: of probability x norm.",
            style="dim",
        )
    )
