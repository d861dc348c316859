"""Which rows may be compared: prediction errors only on the same held-out images, noise and noise levels.

The fixed held-out (x0, t, eps) are a function of the data, the schedule and the time range (see
`training.validation`). Target, loss space, weighting, density of times, network, optimiser and sampler do not enter
them, so rows that differ in these are comparable. Metrics of samples need no more than the same data.
"""

from collections.abc import Mapping, Sequence

from diffexp.report.rows import Row, settings, short

_ENTRIES = ("data", "schedule", "t_min", "t_max")
_TRAINING_ONLY = ("data.flip",)
"""Settings of the data that do not change the held-out images."""


def comparable_rows(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows by what their prediction errors were measured on, named by what varies; "" for all if nothing does.

    Rows of which nothing is recorded yet are in the first group: they have no numbers to confuse.
    """
    known = {row.name: _measured_on(row) for row in rows}
    varying = _varying([table for table in known.values() if table])
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: not known[row.name]):
        name = ", ".join(f"{short(key, varying)} {value}" for key in varying if (value := known[row.name].get(key)))
        groups.setdefault(name if known[row.name] or not groups else next(iter(groups)), []).append(row)
    place = {row.name: index for index, row in enumerate(rows)}
    return {name: sorted(group, key=lambda row: place[row.name]) for name, group in groups.items()}


def same_data(rows: Sequence[Row]) -> bool:
    """Whether samples of all rows can be compared."""
    tables = [{key: value for key, value in table.items() if key.partition(".")[0] == "data"}
              for row in rows if (table := _measured_on(row))]  # fmt: skip
    return not _varying(tables)


def _measured_on(row: Row) -> dict[str, str]:
    """Everything that decides the held-out (x0, t, eps) of a row, flat; empty if nothing is recorded."""
    run = next((run for run in row.runs if run.record), None)
    if run is None:
        return {}
    table = {key: value for key in _ENTRIES if (value := run.text(key))}
    for key, value in settings(row.runs).items():
        if (
            key.startswith(("data.", "schedule.", "validation.count"))
            and key not in _TRAINING_ONLY
            and not key.endswith("._target_")
        ):
            table[key] = value
    return table


def _varying(tables: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys that distinguish the tables, without the settings that a varying choice explains."""
    keys = list(dict.fromkeys(key for table in tables for key in table))
    varying = [key for key in keys if len({table.get(key) for table in tables}) > 1]
    return [key for key in varying if "." not in key or key.partition(".")[0] not in varying]
