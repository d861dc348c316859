"""What was found about a target, in a terminal."""

import itertools
from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffexp.examination import Consequences, Examination
from diffexp.objective import EffectiveWeight
from diffexp.proofs import REFERENCES, Proof
from diffexp.report.reasons import REGIONS
from diffexp.report.words import counted, listed

_STYLE = {"ok": "green", "note": "yellow", "FAILED": "bold red"}
_BARS = " ▁▂▃▄▅▆▇█"


def print_examinations(target: str, found: Mapping[str, Examination]) -> None:
    """One schedule line by line, several as tables; then what is to be known and what failed."""
    terminal = Console(highlight=False)
    console = terminal if terminal.is_terminal else Console(highlight=False, width=120)
    there = {name: each for name, each in found.items() if each.absent is None}
    if len(found) == 1:
        for name, each in there.items():
            console.print(Text(f"target={target} on schedule={name}", style="bold"))
            _print_lines(each, console)
    elif there:
        console.print(Text(f"target={target} on {counted(len(found), 'schedule')}", style="bold"))
        _print_tables(there, console)
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


def _print_lines(each: Examination, console: Console) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    for proof in each.proofs:
        table.add_row(Text(f"  {proof.verdict}", style=_STYLE[proof.verdict]), Text(proof.name), Text(proof.said))
    if each.consequences is not None:
        for name, said in _told(each.consequences):
            table.add_row(Text(""), Text(name), Text(said))
    console.print(table)


def _told(known: Consequences) -> list[tuple[str, str]]:
    """What follows, in words."""
    told: list[tuple[str, str]] = []
    errors = [
        f"{belief} off by {', '.join(f'{_error(known, name, belief)} ({name})' for name in REFERENCES)}"
        for belief in ("x0", "eps")
    ]
    told.append(("  others", "; ".join(errors)))
    regions = zip(REGIONS, _shares(known.weight), strict=True)
    parts = [
        f"{100 * spent:.0f} % on {name}, where {100 * times:.0f} % of the times are"
        for (name, *_), (spent, times) in regions
    ]
    told.append(("weight", f"the plain loss puts {listed(parts)}"))
    told.append(("", _sparkline(known.weight)))
    noise = known.label_noise / known.zero_loss if known.zero_loss else 0.0
    said = "none: the loss can fall to what x_t leaves open"
    if noise > 0:
        said = (
            f"{100 * noise:.3g} % of the loss of answering zero ({known.zero_loss:.4g}) is c xi, which no network can "
            f"predict: the loss cannot fall below {known.label_noise:.4g}"
        )
    told.append(("label noise", said))
    return told


def _error(known: Consequences, name: str, belief: str) -> str:
    return f"{getattr(known.rounding[name], belief).rms:.2g}"


def _shares(weight: EffectiveWeight) -> list[tuple[float, float]]:
    """For each region of log-SNR, its share of the weight and of the times."""
    bins = list(zip(weight.log_snr, weight.weight, weight.times, strict=True))
    shares: list[tuple[float, float]] = []
    for _, low, high in REGIONS:
        there = [(spent * times, times) for at, spent, times in bins if low <= at < high]
        shares.append((sum(spent for spent, _ in there), sum(times for _, times in there)))
    return shares


def _sparkline(weight: EffectiveWeight) -> str:
    """Share of the weight per unit of log-SNR, from high noise to low."""
    bins: dict[int, float] = {}
    for at, spent, times in zip(weight.log_snr, weight.weight, weight.times, strict=True):
        bins[int(at // 1)] = bins.get(int(at // 1), 0.0) + spent * times
    low, high, most = min(bins), max(bins), max(bins.values())
    bars = "".join(_BARS[round(8 * bins.get(at, 0.0) / most)] for at in range(low, high + 1))
    return f"log-SNR {low} {bars} {high + 1}"


def _print_tables(found: Mapping[str, Examination], console: Console) -> None:
    names = list(dict.fromkeys(proof.name for each in found.values() for proof in each.proofs))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("schedule", style="bold", no_wrap=True)
    for name in names:
        table.add_column(Text(name.replace(" ", "\n")), no_wrap=True)
    for schedule, each in found.items():
        proofs = {proof.name: proof for proof in each.proofs}
        table.add_row(schedule, *(_cell(proofs.get(name)) for name in names))
    console.print(table)
    known = {name: each.consequences for name, each in found.items() if each.consequences is not None}
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
    beside = ", ".join(REFERENCES)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("schedule", style="bold", no_wrap=True)
    beliefs = [f"bfloat16: x0 off by\n({beside})", f"eps off by\n({beside})"]
    for heading in (*beliefs, "% of weight (times) at\nlow, middling, high noise", "label\nnoise"):
        table.add_column(heading, no_wrap=True)
    for name, each in known.items():
        cells = [
            f"{_error(each, '', belief)} ({', '.join(_error(each, other, belief) for other in REFERENCES)})"
            for belief in ("x0", "eps")
        ]
        shares = ", ".join(f"{100 * spent:.0f} ({100 * times:.0f})" for spent, times in _shares(each.weight))
        noise = f"{100 * each.label_noise / each.zero_loss:.3g} %" if each.label_noise else "none"
        table.add_row(name, *cells, shares, noise)
    console.print(table)
