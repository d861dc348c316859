"""What `diffexp evaluate diagnostics=...` measures beside errors and samples: nothing, or the training gradient."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from diffexp.denoiser import Denoiser
from diffexp.draws import Draws
from diffexp.errors import UserError
from diffexp.gradients.page import write_page
from diffexp.gradients.statistics import BandGradients, gradients_by_band
from diffexp.gradients.terminal import print_gradients
from diffexp.io.files import write_text
from diffexp.training.setup import Setup

_IMAGES = 4096  # of the training set at most, from which the images are drawn


@runtime_checkable
class TrainedRun(Protocol):
    """What a diagnostic needs of a run: `denoiser` has the averaged weights, `record` is its run.json."""

    @property
    def denoiser(self) -> Denoiser: ...
    @property
    def parts(self) -> Setup: ...
    @property
    def record(self) -> Mapping[str, Any]: ...
    @property
    def step(self) -> int: ...


class Diagnostics(ABC):
    """Something to measure on a trained run."""

    @abstractmethod
    def __call__(self, run: TrainedRun, folder: Path) -> dict[str, Any]:
        """Print the results, write pages into `folder`, and return what the evaluation records."""


@dataclass(frozen=True)
class Nothing(Diagnostics):
    """No diagnostics."""

    def __call__(self, run: TrainedRun, folder: Path) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Gradients(Diagnostics):
    """The training gradient per band of log-SNR (see `diffexp.gradients.statistics`), as a table and as gradients.html.

    Norms are those of the loss that the optimiser sees, divided by the run's loss scale. The loss and the times are the
    run's own, the images are training images, the network has the averaged weights and no dropout.

    Attributes:
        batches: Independent batches per band.
        batch_size: Images in each.
        fresh: Take the initial weights instead; a function of the seed, the same for every target.

    Raises:
        UserError: There are too few batches to separate signal from noise, or no images.
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

    def __call__(self, run: TrainedRun, folder: Path) -> dict[str, Any]:
        data, loss_scale = run.parts.data, float(run.record.get("loss_scale") or 1.0)
        denoiser = run.parts.denoiser(int(run.record["seed"]), data.device)
        if not self.fresh:
            denoiser.network.load_state_dict(run.denoiser.network.state_dict())
        found = gradients_by_band(
            denoiser,
            run.parts.objective,
            data.batch(Draws(0, data.device), 0, min(_IMAGES, data.size("train"))),
            run.parts.times,
            batches=self.batches,
            batch_size=self.batch_size,
            loss_scale=loss_scale,
        )
        choices = ", ".join(
            str(run.record.get(key, "")) for key in ("target", "space", "weighting", "schedule", "data")
        )
        title = f"{choices}, weights {'fresh' if self.fresh else f'after {run.step:,} steps'}"
        print_gradients(f"Training gradient of {title}", found)
        file = folder / "gradients.html"
        write_text(file, write_page(title, found, run.parts.training.batch_size))
        print(file)
        weights = "fresh" if self.fresh else "trained"
        return {"gradients": {"weights": weights, "loss_scale": loss_scale, **_entries(found)}}


def _entries(found: BandGradients) -> dict[str, Any]:
    """All fields, with the norms and noise scales that follow from them."""
    entries = dataclasses.asdict(found)
    for entry, band in zip([entries["whole"], *entries["bands"]], [found.whole, *found.bands], strict=True):
        entry |= {"norm": band.norm, "noise_scale": band.noise_scale}
    return entries
