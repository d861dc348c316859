"""The rows of a study: runs that differ only in their seed, named by what varies."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from diffexp.runs.config_keys import CHOICES, FOLLOWED, PLACE
from diffexp.runs.directory import identity, measurement
from diffexp.runs.run_state import state_of
from diffexp.runs.study import Run

#: The configuration key of the learning rate, which is always shown where it varies.
RATE = "optimizer.lr"

#: Targets in the order in which they are listed; others follow by name.
TARGETS = (
    "epsilon",
    "scaled_noise",
    "step_noise",
    "unit_step_noise",
    "step_difference",
    "x0",
    "posterior_mean",
    "previous_sample",
    "score",
    "v",
    "flow",
    "edm",
)

ABSENT = "-"


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed.

    Attributes:
        name: Their common directory.
        runs: Ordered by seed.
        states: What each of them was when they were read, one of `diffexp.runs.state_names.STATES`.
        choices: All choices by name, and the configuration keys that vary across the study.
        keys: Those of `choices` that vary, which make the label.
    """

    name: str
    runs: tuple[Run, ...]
    states: tuple[str, ...]
    choices: Mapping[str, str]
    keys: tuple[str, ...]

    @property
    def label(self) -> str:
        """The choices that vary: "x0", "x0, space native", "x0, lr 0.001"."""
        parts = [self._part(key) for key in self.keys if self.choices.get(key, ABSENT) != ABSENT]
        return ", ".join(parts) or self.choices.get("target", "") or self.name

    @property
    def phrase(self) -> str:
        """The label within a list: "x0", "x0 (space native)"."""
        head, comma, rest = self.label.partition(", ")
        return f"{head} ({rest})" if comma else head

    @property
    def target(self) -> str:
        return self.choices.get("target", "")

    @property
    def done(self) -> tuple[Run, ...]:
        """The runs that count: those trained to their end."""
        return tuple(run for run in self.runs if run.status == "done")

    def values(self, metric: str) -> dict[int, float]:
        """The metric by seed, of the runs that count."""
        finals = {run.seed: run.final.get(metric) for run in self.done}
        return {seed: value for seed, value in finals.items() if value is not None}

    def optimum(self, metric: str) -> dict[int, float]:
        """The optimal prediction's value of the metric, by seed, where it is known."""
        bests = {run.seed: run.optimum.get(metric) for run in self.done}
        return {seed: value for seed, value in bests.items() if value is not None}

    def names(self, keys: Sequence[str]) -> list[str]:
        """The row's head in a table with a column for each of `keys`, or one column if there are none."""
        if not self.choices or not keys:
            return [self.label, *[""] * (len(keys) - 1)]
        return [self.choices.get(key, ABSENT) for key in keys]

    def _part(self, key: str) -> str:
        value = self.choices.get(key, ABSENT)
        return value if key == "target" else f"{short(key, self.keys)} {value}"


def short(key: str, keys: Sequence[str]) -> str:
    """The last part of a dotted key, if that distinguishes it from the other keys."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def group_rows(runs: Iterable[Run]) -> list[Row]:
    """Runs as rows, in a readable order: by target as documented, then by the other varying keys."""
    groups = _sampled_alike(runs)
    choices = {name: _choices(group) for name, group in groups.items()}
    found = {name: settings(group) for name, group in groups.items()}
    known = [name for name in groups if choices[name]]
    keys = [key for key in CHOICES if _varies(choices[name].get(key) for name in known)]
    configured = [name for name in known if found[name]]
    explained = [PLACE.get(key, key) for key in keys]
    for key in sorted({key for name in configured for key in found[name]}):
        varies = _varies(found[name].get(key, ABSENT) for name in configured)
        if varies and not any(key == place or key.startswith(f"{place}.") for place in explained):
            keys.append(key)
    keys = _without_repeats(keys, {name: choices[name] | found[name] for name in configured})
    for name in configured:
        choices[name] |= {key: found[name].get(key, ABSENT) for key in keys if key not in CHOICES}
    keys += _distinguish(known, keys, choices, found)
    now = time.time()
    states = {name: tuple(state_of(run, now) for run in group) for name, group in groups.items()}
    rows = [
        Row(name, group, states[name], choices[name], tuple(keys) if choices[name] else ())
        for name, group in groups.items()
    ]
    return sorted(rows, key=lambda row: (not row.choices, [_order(row, key) for key in keys], row.name))


def _sampled_alike(runs: Iterable[Run]) -> dict[str, tuple[Run, ...]]:
    """Runs by the name of their directory; those whose samples are drawn otherwise by "<name> #2", and so on."""
    found: dict[str, tuple[Run, ...]] = {}
    for name, group in groupby(runs, key=lambda run: run.name):
        alike: dict[str, list[Run]] = {}
        for run in group:
            alike.setdefault(run.text("samples_hash") or next(iter(alike), ""), []).append(run)
        for number, part in enumerate(alike.values(), 1):
            found[name if number == 1 else f"{name} #{number}"] = tuple(part)
    return found


def _without_repeats(keys: Sequence[str], tables: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The keys that carry information of their own.

    A setting repeats another of the same last name if it has its value wherever it is there at all (`sampler.clip`,
    filled in from `sampling.clip`), and it follows a choice, `FOLLOWED`, whose value decides its own
    (`times.t_max` of each schedule). What goes with the target stays: it competes with the target as an explanation.
    """
    kept: list[str] = []
    for key in sorted(keys, key=lambda key: (key not in CHOICES, key.startswith("sampler."))):
        others = [other for other in kept if other.rpartition(".")[2] == key.rpartition(".")[2]]
        repeats = any(
            all(table.get(key, table.get(other)) == table.get(other) for table in tables.values()) for other in others
        )
        follows = key not in CHOICES and key != RATE and any(_decides(other, key, tables) for other in kept)
        if not (repeats or follows):
            kept.append(key)
    return [key for key in keys if key in kept]


def _decides(choice: str, key: str, tables: Mapping[str, Mapping[str, str]]) -> bool:
    pairs = {(table.get(choice), table.get(key)) for table in tables.values()}
    return choice in FOLLOWED and len(pairs) == len({value for value, _ in pairs})


def followers(rows: Sequence[Row]) -> dict[str, list[str]]:
    """By choice, the settings elsewhere that vary with it and are not named in the rows for that."""
    tables = {row.name: {**settings(row.runs), **row.choices} for row in rows if row.choices and settings(row.runs)}
    shown = next((row.keys for row in rows if row.keys), ())
    found: dict[str, list[str]] = {}
    for key in sorted({key for table in tables.values() for key in table} - set(CHOICES) - set(shown)):
        own = any(key.startswith(f"{PLACE.get(choice, choice)}.") for choice in shown)
        choice = next((other for other in shown if _decides(other, key, tables)), None)
        if choice and not own and _varies(table.get(key) for table in tables.values()):
            found.setdefault(choice, []).append(key)
    return found


def common_choices(rows: Sequence[Row]) -> dict[str, str]:
    """The choices that all rows share."""
    known = [row.choices for row in rows if row.choices]
    first: Mapping[str, str] = known[0] if known else {}
    return {key: first[key] for key in CHOICES if key in first and len({row.get(key) for row in known}) == 1}


def common_settings(rows: Sequence[Row]) -> dict[str, str]:
    """The configuration keys that all rows share, flat, in the configuration's order."""
    found = [table for row in rows if (table := settings(row.runs))]
    first = found[0] if found else {}
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in found)}


def settings(runs: Sequence[Run]) -> dict[str, str]:
    """What decides a row's numbers, flat, as text; see `diffexp.runs.directory.identity` and `measurement`."""
    empty: Mapping[str, Any] = {}
    config = next((run.config for run in runs if run.config), empty)
    return {key: text(value) for key, value in (identity(config) | measurement(config)).items()}


def text(value: object) -> str:
    """A setting's value as it is shown."""
    return f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())[:120]


def _choices(runs: Sequence[Run]) -> dict[str, str]:
    recorded = next((run for run in runs if run.record), None)
    if recorded is None:
        return {}
    return {key: value[:120] for key in CHOICES if (value := recorded.text(key))}


def _distinguish(
    names: Sequence[str],
    keys: Sequence[str],
    choices: dict[str, dict[str, str]],
    found: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """Further keys for rows that would otherwise share a label, such as two settings of one target."""
    twins = _twins(names, keys, choices)
    pairs = [(found[one], found[two]) for one, two in twins]
    candidates = sorted({key for pair in pairs for table in pair for key in table} - set(keys))
    added = [key for key in candidates if any(one.get(key) != two.get(key) for one, two in pairs)]
    for name in names:
        choices[name] |= {key: found[name].get(key, ABSENT) for key in added}
    left = {name for pair in _twins(names, [*keys, *added], choices) for name in pair}
    if left:
        added.append("directory")
        for name in names:
            choices[name]["directory"] = name if name in left else ABSENT
    return added


def _twins(
    names: Sequence[str], keys: Sequence[str], choices: Mapping[str, Mapping[str, str]]
) -> list[tuple[str, str]]:
    """Pairs of rows, each with the first of its kind, that these keys do not distinguish."""
    first: dict[tuple[str | None, ...], str] = {}
    found: list[tuple[str, str]] = []
    for name in names:
        one = first.setdefault(tuple(choices[name].get(key) for key in keys), name)
        if one != name:
            found.append((one, name))
    return found


def _varies(values: Iterable[str | None]) -> bool:
    return len(set(values)) > 1


def _order(row: Row, key: str) -> tuple[int, float, str]:
    value = row.choices.get(key, "")
    if key == "target":
        return (TARGETS.index(value) if value in TARGETS else len(TARGETS)), 0.0, value
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
