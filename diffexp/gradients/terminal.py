"""The training gradient per band of log-SNR, in a terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffexp.gradients.page import noise_scale
from diffexp.gradients.statistics import BandGradients, GradientStatistics

_LEGEND = (
    "norm: of the mean gradient; -: lost in noise. variance: of one image's gradient. noise scale: variance / norm^2, "
    "the batch size at which noise equals signal. share: of probability x norm."
)


def print_gradients(title: str, found: BandGradients) -> None:
    """A row for each band, from noise to image, and one for all together."""
    labelled = found.whole.label_noise > 0
    table = Table("log-SNR", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("times", "norm", "variance", *(["label noise"] if labelled else []), "noise scale", "share"):
        table.add_column(name, justify="right")
    for band in found.bands:
        table.add_row(f"{band.low:g} to {band.high:g}", *_cells(band, labelled))
    table.add_section()
    table.add_row("all", *_cells(found.whole, labelled))
    console = Console()
    console.print(Text(title, style="bold"))
    console.print(table)
    console.print(Text(_LEGEND, style="dim"))


def _cells(band: GradientStatistics, labelled: bool) -> list[str]:
    norm = f"{band.norm:.3g}" if band.resolved else "-"
    label = [f"{100 * band.label_noise:.4g} %"] if labelled else []
    start = [f"{100 * band.probability:.1f} %", norm, f"{band.variance:.3g}"]
    return [*start, *label, noise_scale(band), f"{100 * band.share:.1f} %"]
