"""The measurements of `diffexp evaluate`, as rows of target, sampler and network evaluations."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, cast

from diffexp.report.metrics import Metric, comparable_metrics, shown_metrics
from diffexp.report.rows import Row, text
from diffexp.report.statistics import mean_over_seeds
from diffexp.report.summary import Cell, Summary
from diffexp.runs.evaluations import Evaluation


@dataclass(frozen=True)
class SamplerRow:
    """One row of a study sampled in one way, over its seeds.

    Attributes:
        sampler: Its name and what varies of its settings: "ddim, eta 0.5"; of `weights_rows`, the weights.
        nfe: Network evaluations per sample; None for what does not depend on the sampler.
        cells: By metric.
    """

    row: Row
    sampler: str
    nfe: int | None
    cells: Mapping[str, Cell]

    def cell(self, metric: Metric) -> Cell:
        return self.cells.get(metric.key, Cell(None, None))


def evaluated_metrics(summary: Summary, of_samples: bool) -> list[Metric]:
    """The metrics of the study's evaluations: those of samples, or those of the weights alone."""
    keys = {key for found in summary.evaluations.values() for each in found for key in each.metrics}
    metrics = shown_metrics(comparable_metrics(keys, summary.directions))
    return [metric for metric in metrics if metric.of_samples == of_samples]


def sampler_rows(summary: Summary) -> list[SamplerRow]:
    """By row, sampler and NFE, in this order."""
    names = _sampler_names([each for found in summary.evaluations.values() for each in found])
    rows = [each for row in summary.rows for each in _rows(summary, row, lambda e: (names[id(e)], e.nfe))]
    return [each for each in rows if any(metric.of_samples for metric in map(Metric, each.cells))]


def weights_rows(summary: Summary) -> list[SamplerRow]:
    """By row and weights, for what does not depend on the sampler."""
    return [each for row in summary.rows for each in _rows(summary, row, lambda e: (e.weights, None))]


def _rows(summary: Summary, row: Row, place: Callable[[Evaluation], tuple[str, int | None]]) -> list[SamplerRow]:
    """The row's evaluations by place; of several of one run at one place, that of the newest weights counts."""
    values: dict[tuple[str, int | None], dict[str, dict[int, float]]] = {}
    runs = row.done or row.runs
    for run in runs:
        for each in sorted(summary.evaluations.get(run.path, ()), key=lambda each: each.step):
            for key, value in each.metrics.items():
                values.setdefault(place(each), {}).setdefault(key, {})[run.seed] = value
    return [
        SamplerRow(row, name, nfe, {key: _cell(key, found, bool(row.done)) for key in found})
        for (name, nfe), found in sorted(values.items(), key=lambda item: (item[0][0], item[0][1] or 0))
    ]


def _cell(key: str, found: Mapping[str, Mapping[int, float]], done: bool) -> Cell:
    values = list(found[key].values())
    floors = found.get(f"{key}/floor") or found.get(f"{key}/optimum") or {}
    floor = fmean(floors.values()) if floors else None
    return Cell(mean_over_seeds(values), None, floor=floor) if done else Cell(None, fmean(values), floor=floor)


def _sampler_names(evaluations: Sequence[Evaluation]) -> dict[int, str]:
    """By the evaluation's id, its sampler with those settings that distinguish it from others of that sampler."""
    everywhere = [key for key in ("clip", "weights") if len({getattr(each, key) for each in evaluations}) > 1]
    names: dict[int, str] = {}
    for sampler in dict.fromkeys(each.sampler for each in evaluations):
        alike = [each for each in evaluations if each.sampler == sampler]
        tables = [_settings(each) for each in alike]
        keys = [key for key in dict.fromkeys(key for table in tables for key in table)
                if key in everywhere or len({table.get(key) for table in tables}) > 1]  # fmt: skip
        if len({(each.nfe, each.steps) for each in alike}) == len({each.nfe for each in alike}):
            keys = [key for key in keys if key != "steps"]
        for each, table in zip(alike, tables, strict=True):
            names[id(each)] = ", ".join([sampler, *(f"{key} {table[key]}" for key in keys if key in table)])
    return names


def _settings(each: Evaluation) -> dict[str, str]:
    """What distinguishes two questions to one sampler, as text."""
    known: dict[str, Any] = {"steps": each.steps, "eta": each.eta, "grid": each.grid, "clip": each.clip,
                             "weights": each.weights}  # fmt: skip
    known = {**dict(_scalars(each.settings.get("sampler"))), **{k: v for k, v in known.items() if v is not None}}
    known |= {f"sampling.{key}": value for key, value in _scalars(each.settings.get("sampling")) if key != "clip"}
    return {key: text(value) for key, value in known.items()}


def _scalars(section: object) -> Iterable[tuple[str, object]]:
    entries = cast(dict[str, object], section) if isinstance(section, dict) else dict[str, object]()
    return [(key, value) for key, value in entries.items()
            if isinstance(value, str | int | float) and not key.startswith("_")]  # fmt: skip
