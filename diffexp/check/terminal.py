"""What was found about a target, in a terminal."""

import itertools
from collections.abc import Mapping
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffexp.check.checks import REFERENCES, Proof
from diffexp.check.target import Examination
from diffexp.check.training import NOISE_LEVELS, Consequences
from diffexp.objective import EffectiveWeight
from diffexp.report.format import counted, listed
from diffexp.runs.metric_keys import NOISE_REGIONS

_STYLE = {"ok": "green", "note": "yellow", "FAILED": "bold red"}
_BARS = " ▁▂▃▄▅▆▇█"


def print_verdicts(target: str, found: Mapping[str, Examination], known: Mapping[str, Consequences]) -> None:
    """One schedule line by line, several as tables with what is to be known or failed below; the verdict last.

    Args:
        target: As typed.
        found: By schedule.
        known: By schedule, where every proof holds.
    """
    terminal = Console(highlight=False)
    console = terminal if terminal.is_terminal else Console(highlight=False, width=120)
    there = {name: each for name, each in found.items() if each.absent is None}
    if len(found) == 1:
        for name, each in there.items():
            console.print(Text(f"target={target} on schedule={name}", style="bold"))
            _print_lines(each, known.get(name), console)
    elif there:
        console.print(Text(f"target={target} on {counted(len(found), 'schedule')}", style="bold"))
        _print_tables(there, known, console)
    absent: dict[str, list[str]] = {}
    for name, each in found.items():
        if each.absent is not None:
            absent.setdefault(each.absent, []).append(name)
    for why, names in absent.items():
        console.print(Text(f"target={target} does not exist on schedule={' and '.join(names)}: {why}"))
    console.print(Text(_verdict(target, found), style="bold"))


def _verdict(target: str, found: Mapping[str, Examination]) -> str:
    there = [name for name, each in found.items() if each.absent is None]
    failed = [name for name in there if not found[name].holds]
    if not there:
        return f"target={target} exists on none of them: nothing is proved."
    if failed:
        return f"target={target} is wrong on {listed(failed)}."
    return f"Every proof holds on {listed(there) if len(there) == 1 else counted(len(there), 'schedule')}."


def _print_lines(each: Examination, known: Consequences | None, console: Console) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    for proof in each.proofs:
        table.add_row(Text(f"  {proof.verdict}", style=_STYLE[proof.verdict]), Text(proof.name), Text(proof.said))
    for name, said in [] if known is None else _told(known):
        table.add_row(Text(""), Text(name), Text(said))
    console.print(table)


def _told(known: Consequences) -> list[tuple[str, str]]:
    """What follows, in words."""
    moved = [f"for {name} by {_error(known, name, 'x0')} and {_error(known, name, 'eps')}" for name in REFERENCES]
    regions = zip(NOISE_REGIONS, _shares(known.weight), strict=True)
    spread = [
        f"{100 * spent:.0f} % on {name} noise, {100 * times:.0f} % of the times" for name, (spent, times) in regions
    ]
    noise = "none: y is a function of x0 and eps alone"
    if known.label_noise:
        share = 100 * known.label_noise / known.zero_loss
        noise = (
            f"{share:.3g} % of the zero answer's loss ({known.zero_loss:.4g}) is c xi, which no network can predict: "
            f"the loss cannot fall below {known.label_noise:.4g}"
        )
    low, middling, high = _pulls(known)
    return [
        ("", listed(moved)),
        ("weight", f"of the plain loss: {'; '.join(spread)}"),
        ("", _sparkline(known.weight)),
        ("label noise", noise),
        ("gradient", f"of a first step, over epsilon's: {low} at low, {middling} at middling, {high} at high noise"),
    ]


def _pulls(known: Consequences) -> tuple[str, str, str]:
    """The first gradients over epsilon's at low, middling and high noise; - where there are no times."""
    found = {band.low: f"{band.ratio:.2g}" for band in known.gradients}
    high, middling, low, _ = NOISE_LEVELS
    return found.get(low, "-"), found.get(middling, "-"), found.get(high, "-")


def _error(known: Consequences, name: str, belief: Literal["x0", "eps"]) -> str:
    """By how much rounding to bfloat16 moves a belief at worst."""
    cost = known.rounding[name]
    rms = (cost.x0 if belief == "x0" else cost.eps).rms
    return f"{rms:.0f}" if rms >= 1 else f"{rms:.1g}"


def _shares(weight: EffectiveWeight) -> list[tuple[float, float]]:
    """For each region of log-SNR, its share of the weight and of the times."""
    bins = list(zip(weight.log_snr, weight.weight, weight.times, strict=True))
    shares: list[tuple[float, float]] = []
    for low, high in NOISE_REGIONS.values():
        there = [(spent * times, times) for at, spent, times in bins if low <= at < high]
        shares.append((sum((spent for spent, _ in there), 0.0), sum((times for _, times in there), 0.0)))
    return shares


def _sparkline(weight: EffectiveWeight) -> str:
    """Share of the weight per unit of log-SNR, from high noise to low."""
    bins: dict[int, float] = {}
    for at, spent, times in zip(weight.log_snr, weight.weight, weight.times, strict=True):
        bins[int(at // 1)] = bins.get(int(at // 1), 0.0) + spent * times
    low, high, most = min(bins), max(bins), max(bins.values())
    bars = "".join(_BARS[round(8 * bins.get(at, 0.0) / most)] for at in range(low, high + 1))
    return f"log-SNR {low} {bars} {high + 1}"


def _print_tables(found: Mapping[str, Examination], known: Mapping[str, Consequences], console: Console) -> None:
    names = list(dict.fromkeys(proof.name for each in found.values() for proof in each.proofs))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("schedule", style="bold", no_wrap=True)
    for name in names:
        table.add_column(Text(name.replace(" ", "\n")), no_wrap=True)
    for schedule, each in found.items():
        proofs = {proof.name: proof for proof in each.proofs}
        table.add_row(schedule, *(_cell(proofs.get(name)) for name in names))
    console.print(table)
    if known:
        _print_consequences(known, console)
    for verdict, (name, each) in itertools.product(("note", "FAILED"), found.items()):
        for proof in each.proofs:
            if proof.verdict == verdict:
                line = Text(f"{verdict}  ", style=_STYLE[verdict])
                console.print(line.append(f"{name}, {proof.name}: {proof.said}", style="default"))


def _cell(proof: Proof | None) -> Text:
    if proof is None:
        return Text("-", style="dim")
    text = Text(proof.verdict, style=_STYLE[proof.verdict])
    if proof.value is not None:
        text.append(f" {proof.value:.0e}" if proof.value else " 0", style="dim")
    return text


def _print_consequences(known: Mapping[str, Consequences], console: Console) -> None:
    beside = f"({', '.join(REFERENCES)})"
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("schedule", style="bold", no_wrap=True)
    for heading in (
        f"x0 moves\n{beside}",
        f"eps moves\n{beside}",
        "% weight\n(% times)",
        "gradient over\nepsilon's",
        "label\nnoise",
    ):
        table.add_column(heading)
    for name, each in known.items():
        moves = [
            f"{_error(each, '', belief)} ({', '.join(_error(each, other, belief) for other in REFERENCES)})"
            for belief in _BELIEFS
        ]
        weight, times = (
            " ".join(f"{100 * part:.0f}" for part in parts) for parts in zip(*_shares(each.weight), strict=True)
        )
        noise = f"{100 * each.label_noise / each.zero_loss:.3g} %" if each.label_noise else "none"
        table.add_row(name, *moves, f"{weight} ({times})", " ".join(_pulls(each)), noise)
    console.print(table)
    console.print(Text(_LEGEND, style="dim"))


_BELIEFS: tuple[Literal["x0", "eps"], ...] = ("x0", "eps")
_LEGEND = (
    "moves: root mean square error of a belief at the worst time from rounding the answer to bfloat16, for data of "
    "unit variance (the U-Net here answers in float32). weight: of the plain loss on the eps-error; gradient: root "
    "mean square of a first step's, normalised; both at low, middling, high noise (log-SNR above 4, 4 to -4, below)."
)
