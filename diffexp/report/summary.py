"""A study in numbers: means over seeds, and differences paired by seed to a baseline.

Only runs that are done enter a mean; all others are counted and shown. The baseline of a row is the row that
agrees with it in everything but the baseline's own choices, so that each comparison turns one knob.
"""

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from diffexp.errors import UserError
from diffexp.report.comparable import comparable_rows, same_data
from diffexp.report.metrics import Metric, comparable_metrics, shown_metrics
from diffexp.report.rows import RATE, Row, common_choices, group_rows
from diffexp.report.statistics import Mean, holm, mean_over_seeds, paired_difference
from diffexp.report.training import Training, trained
from diffexp.runs.study import Run, read_study

#: What a row's learning rate is chosen by, where several were tried.
CHOSEN_BY = "val/belief_eps"


@dataclass(frozen=True)
class Cell:
    """One metric of one row.

    Attributes:
        value: Mean over the seeds that are done; None if none is.
        so_far: Latest mean of the runs that did not come to an end, where none is done; not comparable.
        difference: To the row's baseline, paired by seed; None without a baseline or without shared seeds.
        p_holm: p of the difference, corrected for all differences of this metric; from three pairs on.
        floor: What real images score against other real images, or the best possible network's, where it is known.
    """

    value: Mean | None
    so_far: float | None
    difference: Mean | None = None
    p_holm: float | None = None
    floor: float | None = None


@dataclass(frozen=True)
class Summary:
    """Rows against metrics.

    Attributes:
        keys: The choices that vary, without those that `rows` were matched without.
        baseline: The choices that make a row a baseline, such as {"target": "epsilon"}.
        baselines: For each row's name, its baseline row, if there is one.
        cells: By row name and metric key; `metrics` are those shown, further ones are only in the JSON.
        groups: The rows whose belief errors may be compared, by what they were measured on.
        training: By row name, what its training curves say of its end.
        chosen_by: The metric by which each row was taken from several learning rates, if so.
    """

    study: str
    path: Path
    rows: Sequence[Row]
    keys: tuple[str, ...]
    baseline: Mapping[str, str]
    baselines: Mapping[str, Row]
    metrics: Sequence[Metric]
    cells: Mapping[tuple[str, str], Cell]
    common: Mapping[str, str]
    groups: Mapping[str, Sequence[Row]]
    training: Mapping[str, Training]
    chosen_by: str | None = None
    best_rate: "Summary | None" = field(default=None, repr=False)

    @property
    def compares(self) -> bool:
        """Whether there is any difference to a baseline to show."""
        return any(cell.difference for cell in self.cells.values())

    @property
    def columns(self) -> tuple[str, ...]:
        """The choices that a table shows of each row: those that vary, and the rate that was chosen."""
        return (*self.keys, RATE) if self.chosen_by else self.keys

    @property
    def runs(self) -> list[Run]:
        return [run for row in self.rows for run in row.runs]

    @property
    def states(self) -> list[str]:
        """What each of `runs` was when they were read."""
        return [state for row in self.rows for state in row.states]

    @property
    def most_seeds(self) -> int:
        """The largest number of finished seeds in a row."""
        return max((len(row.done) for row in self.rows), default=0)

    @property
    def baseline_label(self) -> str:
        """The baseline in words: "epsilon", "space native"."""
        return ", ".join(value if key == "target" else f"{key} {value}" for key, value in self.baseline.items())

    def cell(self, row: Row, metric: Metric | str) -> Cell:
        key = metric if isinstance(metric, str) else metric.key
        return self.cells.get((row.name, key), Cell(None, None))


def summarise(path: Path, baseline: str | None = None, chosen_by: str = CHOSEN_BY) -> Summary:
    """Read a study's folder and sum it up, at any time of its life.

    Args:
        path: The study's folder.
        baseline: A target's name, or choices as "space=native" or "target=v,space=v"; by default epsilon if
            targets are compared and it is among them, else the first row.
        chosen_by: The metric (the lower the better, unless its name says otherwise) that picks each row's
            best learning rate, where several were tried.

    Raises:
        UserError: There are no runs, or no row is such a baseline, or no run has `chosen_by`.
    """
    runs = read_study(path)
    if not runs:
        raise UserError(f"{path} holds no runs, so there is nothing to report.")
    rows = group_rows(runs)
    keys = next((row.keys for row in rows if row.keys), ())
    overrides = _baseline(baseline, rows, keys)
    study = path.resolve().name
    whole = _sum_up(study, path, rows, keys, overrides)
    if RATE not in keys:
        return whole
    chosen = _at_best_rate(rows, chosen_by)
    if not chosen:
        return whole
    without_rate = tuple(key for key in keys if key != RATE)
    overrides = {key: value for key, value in overrides.items() if key != RATE} or {
        key: chosen[0].choices[key] for key in without_rate if key in _baseline(None, chosen, without_rate)
    }
    best = _sum_up(study, path, chosen, without_rate, overrides)
    return replace(whole, best_rate=replace(best, chosen_by=chosen_by))


def latest(run: Run) -> dict[str, float]:
    """The newest value of each of a run's metrics, whatever became of the run."""
    newest: dict[str, float] = {}
    for line in run.metrics():
        newest |= {key: value for key, value in line.items() if value is not None}
    return newest | run.final


def _sum_up(study: str, path: Path, rows: Sequence[Row], keys: tuple[str, ...], baseline: Mapping[str, str]) -> Summary:
    partial = {row.name: _partial(row) for row in rows if not row.done}
    found = {key for row in rows for run in row.done for key in run.final}
    found |= {key for values in partial.values() for key in values}
    metrics = comparable_metrics(found)
    comparable = {metric.key for metric in metrics}
    groups = comparable_rows(rows)
    group_of = {row.name: name for name, group in groups.items() for row in group}
    one_data = same_data(rows)
    place = {tuple(row.choices.get(key) for key in keys): row for row in rows if row.choices}
    baselines = {
        row.name: partner
        for row in rows
        if (partner := place.get(tuple(baseline.get(key, row.choices.get(key)) for key in keys)))
    }
    cells: dict[tuple[str, str], Cell] = {}
    for key in sorted(found):
        if "/lam_" in key or key.endswith("/floor") or key.startswith(("train/", "time/")):
            continue
        for row in rows:
            values = row.values(key)
            partner = baselines.get(row.name)
            paired = key in comparable and partner is not None and partner.name != row.name
            if paired and partner and group_of[partner.name] != group_of[row.name]:
                paired = Metric(key).of_samples and one_data
            floors = row.values(Metric(key).floor) or row.optimum(key)
            cells[row.name, key] = Cell(
                mean_over_seeds(list(values.values())),
                partial.get(row.name, {}).get(key),
                paired_difference(values, partner.values(key)) if paired and partner else None,
                floor=sum(floors.values()) / len(floors) if floors else None,
            )
        for group in groups.values():
            _correct(cells, [(row.name, key) for row in group])
    training = {row.name: trained(row) for row in rows if row.done}
    return Summary(
        study,
        path,
        rows,
        keys,
        baseline,
        baselines,
        shown_metrics(metrics),
        cells,
        common_choices(rows),
        groups,
        training,
    )


def _correct(cells: dict[tuple[str, str], Cell], family: Sequence[tuple[str, str]]) -> None:
    """Fill in Holm's p for the differences of one metric that rest on three pairs or more."""
    tested = {
        place: difference.p
        for place in family
        if (difference := cells[place].difference) and difference.n >= 3 and difference.p is not None
    }
    for place, p in zip(tested, holm(list(tested.values())), strict=True):
        cells[place] = replace(cells[place], p_holm=p)


def _partial(row: Row) -> dict[str, float]:
    values: defaultdict[str, list[float]] = defaultdict(list)
    for run in row.runs:
        for key, value in latest(run).items():
            values[key].append(value)
    return {key: sum(found) / len(found) for key, found in values.items()}


def _baseline(typed: str | None, rows: Sequence[Row], keys: tuple[str, ...]) -> dict[str, str]:
    targets = [row.target for row in rows if row.target]
    if typed is None:
        if "target" in keys and "epsilon" in targets:
            return {"target": "epsilon"}
        groups = comparable_rows(rows).values()
        within = [key for key in keys if any(len({row.choices.get(key) for row in group}) > 1 for group in groups)]
        return {key: rows[0].choices.get(key, "") for key in within}
    parts = [part.partition("=") for part in typed.split(",")]
    wanted = {key: value for key, equals, value in parts if equals} or {"target": typed}
    for key, value in wanted.items():
        there = list(dict.fromkeys(row.choices[key] for row in rows if key in row.choices))
        if not there:
            known = ", ".join(keys) or "nothing"
            raise UserError(f"--baseline {typed}: no run of this study records {key}. What varies here: {known}.")
        if value not in there:
            near = difflib.get_close_matches(value, there, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UserError(f"--baseline {typed}: no run has {key}={value}.{hint} There is {key}={', '.join(there)}.")
    return wanted


def _at_best_rate(rows: Sequence[Row], chosen_by: str) -> list[Row]:
    """Of rows that differ only in their rate, the best; one with fewer finished seeds only if it must be."""
    groups: defaultdict[tuple[tuple[str, str], ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple((key, value) for key, value in row.choices.items() if key != RATE)].append(row)
    best: list[Row] = []
    sign = -1 if Metric(chosen_by).higher_is_better else 1
    for group in groups.values():
        scored = [(-len(values), sign * sum(values.values()) / len(values), row) for row in group
                  if (values := row.values(chosen_by))]  # fmt: skip
        if scored:
            best.append(min(scored, key=lambda entry: entry[:2])[2])
    if not best and any(row.done for row in rows):
        known = ", ".join(metric.key for metric in comparable_metrics(k for r in rows for x in r.done for k in x.final))
        raise UserError(f"--select {chosen_by}: no finished run has it. There is {known}.")
    return best
