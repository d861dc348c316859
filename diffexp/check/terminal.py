"""The results of `diffexp check`, in a terminal."""

from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffexp.check.checks import REFERENCES, CheckResult
from diffexp.check.target import TargetReport
from diffexp.check.training import TrainingReport
from diffexp.objective import EffectiveWeight
from diffexp.report.format import counted, listed, number, rounded_percent
from diffexp.runs.metric_keys import NOISE_REGIONS, NOISE_REGIONS_TEXT

_STYLE = {"ok": "green", "note": "yellow", "FAILED": "bold red"}
_BARS = " ▁▂▃▄▅▆▇█"
_LEGEND = (
    "x0, eps error: root mean square, at the worst time, from rounding the prediction to bfloat16, for data of unit "
    "variance (the U-Net here returns float32). weight: of the plain loss on the eps-error; gradient: root mean square "
    f"of an untrained network's, normalised; both at high, middle, low noise. {NOISE_REGIONS_TEXT}"
)


def print_reports(target: str, reports: Mapping[str, TargetReport], training: Mapping[str, TrainingReport]) -> None:
    """One schedule line by line; several as tables, with notes and failures below; the verdict last.

    Args:
        target: As on the command line.
        reports: By schedule.
        training: By schedule, where every check passes.
    """
    terminal = Console(highlight=False)
    console = terminal if terminal.is_terminal else Console(highlight=False, width=120)
    defined = {name: report for name, report in reports.items() if report.undefined is None}
    if defined:
        where = f"schedule={next(iter(reports))}" if len(reports) == 1 else counted(len(reports), "schedule")
        console.print(Text(f"target={target} on {where}", style="bold"))
        (_print_lines if len(reports) == 1 else _print_tables)(defined, training, console)
    reasons: dict[str, list[str]] = {}
    for name, report in reports.items():
        if report.undefined is not None:
            reasons.setdefault(report.undefined, []).append(name)
    for reason, names in reasons.items():
        console.print(Text(f"target={target} does not exist on schedule={' and '.join(names)}: {reason}"))
    console.print(Text(_verdict(target, defined), style="bold"))


def _verdict(target: str, defined: Mapping[str, TargetReport]) -> str:
    failed = [name for name, report in defined.items() if not report.passed]
    if not defined:
        return f"target={target} exists on none of them: nothing was checked."
    if failed:
        return f"target={target} is wrong on {listed(failed)}."
    return f"All checks pass on {listed(list(defined)) if len(defined) == 1 else counted(len(defined), 'schedule')}."


def _print_lines(reports: Mapping[str, TargetReport], training: Mapping[str, TrainingReport], console: Console) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, report in reports.items():
        for result in report.results:
            style = _STYLE[result.verdict]
            table.add_row(Text(f"  {result.verdict}", style=style), Text(result.name), Text(result.message))
        for heading, text in _sentences(training[name]) if name in training else ():
            table.add_row(Text(""), Text(heading), Text(text))
    console.print(table)


def _sentences(known: TrainingReport) -> Iterator[tuple[str, str]]:
    """(heading, sentence) of what follows for training."""
    yield "", listed([f"for {name} by {' and '.join(_rounding_errors(known, name))}" for name in REFERENCES])
    shares = [
        f"{rounded_percent(weight)} at {name} noise, {rounded_percent(times)} of the times"
        for name, (weight, times) in _shares(known).items()
    ]
    yield "weight", f"of the plain loss: {'; '.join(shares)}"
    yield "", _sparkline(known.weight)
    noise = "none: y is a function of x0 and eps alone"
    if known.label_noise:
        noise = (
            f"{_label_noise(known)} of the zero-prediction loss ({number(known.zero_loss)}) is c xi, which is "
            f"irreducible: the loss cannot fall below {number(known.label_noise)}"
        )
    yield "label noise", noise
    ratios = [f"{ratio} at {name}" for name, ratio in zip(NOISE_REGIONS, _gradients(known), strict=True)]
    yield "gradient", f"of an untrained network, over epsilon's: {', '.join(ratios)} noise"


def _label_noise(known: TrainingReport) -> str:
    return f"{100 * known.label_noise / known.zero_loss:.3g} %" if known.label_noise else "none"


def _gradients(known: TrainingReport) -> list[str]:
    """The ratio of each noise region; - where training has no times."""
    return [f"{known.gradients[name]:.2g}" if name in known.gradients else "-" for name in NOISE_REGIONS]


def _rounding_errors(known: TrainingReport, name: str) -> tuple[str, str]:
    """The largest error of x0 and of eps from rounding to bfloat16."""
    x0, eps = (f"{cost.rms:.0f}" if cost.rms >= 1 else f"{cost.rms:.1g}"
               for cost in (known.rounding[name].x0, known.rounding[name].eps))  # fmt: skip
    return x0, eps


def _shares(known: TrainingReport) -> dict[str, tuple[float, float]]:
    """For each noise region, its share of the weight and of the times."""
    return {name: known.weight.shares(low, high) for name, (low, high) in NOISE_REGIONS.items()}


def _sparkline(weight: EffectiveWeight) -> str:
    """Share of the weight per unit of log-SNR, from high noise to low."""
    bins: dict[int, float] = {}
    for at, value, times in zip(weight.log_snr, weight.weight, weight.times, strict=True):
        bins[int(at // 1)] = bins.get(int(at // 1), 0.0) + value * times
    low, high, most = min(bins), max(bins), max(bins.values())
    bars = "".join(_BARS[round(8 * bins.get(at, 0.0) / most)] for at in range(low, high + 1))
    return f"log-SNR {low} {bars} {high + 1}"


def _print_tables(
    reports: Mapping[str, TargetReport], training: Mapping[str, TrainingReport], console: Console
) -> None:
    names = list(dict.fromkeys(result.name for report in reports.values() for result in report.results))
    rows: dict[str, list[str | Text]] = {}
    for schedule, report in reports.items():
        results = {result.name: result for result in report.results}
        rows[schedule] = [_cell(results.get(name)) for name in names]
    console.print(_table([name.replace(" ", "\n") for name in names], rows))
    if training:
        beside = f"({', '.join(REFERENCES)})"
        headings = [f"x0 error\n{beside}", f"eps error\n{beside}", "% weight\n(% times)", "gradient over\nepsilon's",
                    "label\nnoise"]  # fmt: skip
        console.print(_table(headings, {schedule: _training_cells(known) for schedule, known in training.items()}))
        console.print(Text(_LEGEND, style="dim"))
    for verdict in ("note", "FAILED"):
        for schedule, report in reports.items():
            for result in report.results:
                if result.verdict == verdict:
                    line = Text(f"{verdict}  ", style=_STYLE[verdict])
                    console.print(line.append(f"{schedule}, {result.name}: {result.message}", style="default"))


def _table(headings: Sequence[str], rows: Mapping[str, Sequence[str | Text]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("schedule", style="bold", no_wrap=True)
    for heading in headings:
        table.add_column(heading)
    for schedule, cells in rows.items():
        table.add_row(schedule, *cells)
    return table


def _cell(result: CheckResult | None) -> Text:
    if result is None:
        return Text("-", style="dim")
    text = Text(result.verdict, style=_STYLE[result.verdict])
    if result.value is not None:
        text.append(f" {result.value:.0e}" if result.value else " 0", style="dim")
    return text


def _training_cells(known: TrainingReport) -> list[str | Text]:
    ours, others = _rounding_errors(known, ""), [_rounding_errors(known, name) for name in REFERENCES]
    errors = [f"{own} ({', '.join(beside)})" for own, beside in zip(ours, zip(*others, strict=True), strict=True)]
    weight, times = (
        " ".join(f"{100 * part:.0f}" for part in parts) for parts in zip(*_shares(known).values(), strict=True)
    )
    return [*errors, f"{weight} ({times})", " ".join(_gradients(known)), _label_noise(known)]
