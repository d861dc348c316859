"""A plan in a terminal and as JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from diffexp.cli.plans import Cost, Plan
from diffexp.io.progress import clock
from diffexp.io.redact import on_one_line
from diffexp.report.format import counted, number, percent

_HEADINGS = ("network", "data", "batch", "runs", "parameters", "FLOPs/step", "images/run", "time/run", "known from")
_NUMBERS = {"batch", "runs", "parameters", "FLOPs/step", "images/run", "time/run"}
_MOST = 20


def plan_lines(plan: Plan) -> Iterator[Text]:
    """What is there, what each configuration of network takes, and what all of it takes."""
    states = ", ".join(f"{count} {state}" for state, count in plan.states.items())
    yield Text(f"{counted(len(plan.jobs), 'run')}: {states}", style="bold")
    begun = [job for job in plan.jobs if job.state not in ("new", "done", "diverged")]
    for job in begun[:_MOST]:
        images = plan.costs[job.cost].images
        yield Text(f"  {job.state:<10} {percent(job.images_seen / images):>5}  {on_one_line(job.path)}")
    if len(begun) > _MOST:
        yield Text(f"  and {len(begun) - _MOST} more", style="dim")
    yield Text()
    rows = [_cells(plan, index) for index in range(len(plan.costs))]
    widths = [max(map(cell_len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    yield Text(_padded(_HEADINGS, widths), style="dim")
    for cells, settings in zip(rows, set_apart(plan.costs), strict=True):
        yield Text(_padded(cells, widths))
        if settings:
            yield Text(f"  {on_one_line(settings)}", style="dim")
    yield Text()
    yield from map(Text, _sums(plan))


def plan_json(plan: Plan) -> dict[str, Any]:
    """All of it, for `strict_json`; seconds, bytes, shares in [0, 1]."""
    return {
        "states": plan.states,
        "launcher": plan.launcher,
        "jobs_at_a_time": plan.at_a_time,
        "configurations": [
            {
                "network": cost.network,
                "data": cost.data,
                "settings": settings,
                "batch_size": cost.batch_size,
                "runs": sum(job.cost == index for job in plan.jobs),
                "parameters": cost.parameters,
                "flops_per_step": cost.flops_per_step,
                "images_per_run": cost.images,
                "seconds_per_run": cost.seconds,
                "timed": cost.timed,
                "device": cost.device,
                "bytes_per_run": dict(cost.bytes),
                "sized": cost.sized,
            }
            for index, (cost, settings) in enumerate(zip(plan.costs, set_apart(plan.costs), strict=True))
        ],
        "runs": [
            {
                "path": job.path,
                "state": job.state,
                "progress": job.images_seen / plan.costs[job.cost].images,
                "configuration": job.cost,
                "seconds": plan.seconds(job),
            }
            for job in plan.jobs
        ],
        "total": plan.totals(),
    }


def set_apart(costs: Sequence[Cost]) -> list[str]:
    """What sets each apart from those that the table shows alike, as "sampler.steps=100"."""
    told: list[str] = []
    for cost in costs:
        shown = (cost.network, cost.data, cost.batch_size)
        alike = [other.work for other in costs if (other.network, other.data, other.batch_size) == shown]
        told.append(
            " ".join(
                f"{key}={value}"
                for key, value in cost.work.items()
                if any(other.get(key) != value for other in alike) and not key.endswith("._target_")
            )
        )
    return told


def _cells(plan: Plan, index: int) -> list[str]:
    cost = plan.costs[index]
    return [
        on_one_line(cost.network),
        on_one_line(cost.data),
        str(cost.batch_size),
        str(sum(job.cost == index for job in plan.jobs)),
        f"{cost.parameters:,}",
        scaled(float(cost.flops_per_step)),
        f"{cost.images:,}",
        clock(cost.seconds),
        on_one_line(cost.timed),
    ]


def _sums(plan: Plan) -> Iterator[str]:
    totals, devices = plan.totals(), sorted({cost.device for cost in plan.costs})
    if totals["runs"]:
        line = (
            f"to do: {counted(totals['runs'], 'run')}, {totals['images']:,.0f} images, "
            f"{scaled(float(totals['flops']))}FLOPs, {clock(totals['seconds'])} of {' and '.join(devices)}"
        )
        if plan.at_a_time > 1:
            line += f"; about {clock(totals['wall_seconds'])} with {plan.at_a_time} jobs at a time ({plan.launcher})"
        yield line
        if plan.at_a_time > 1 and any(device != "cpu" for device in devices) and plan.launcher == "local":
            yield "  if each had the device for itself: jobs that share one slow each other down"
        yield "  the start of each process, its metric's preparation and compilation not counted"
    else:
        yield "to do: nothing"
    parts = ", ".join(f"{name} {size(value)}" for name, value in totals["bytes"].items())
    sized = sorted({cost.sized for cost in plan.costs})
    whole = sum(totals["bytes"].values(), 0.0)
    yield f"disk: {size(whole)} for all runs ({parts}; {', '.join(sized)}; without loggers)"


def scaled(value: float) -> str:
    """ "4.12 G": three digits and the power of a thousand."""
    for power, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:.3g} {unit}"
    return f"{number(value)} "


def size(value: float) -> str:
    """Bytes in words, as "1.2 GB"."""
    return f"{scaled(value)}B"


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        " " * (width - cell_len(cell)) + cell if heading in _NUMBERS else cell + " " * (width - cell_len(cell))
        for heading, cell, width in zip(_HEADINGS, cells, widths, strict=True)
    ]
    return "  ".join(padded).rstrip()
