"""A run's directory: who it is, how it is doing, and reading a whole study back.

    <root>/<study>/<readable choices>-<8 hex of the configuration>/seed=<N>/
        config.yaml     the resolved configuration
        run.json        identity, status and final numbers; always whole (see `files.replacing`)
        metrics.jsonl   one JSON object a line, each with `images_seen`
        samples/  checkpoints/  traceback.txt

These files are the truth of a run; every logger, page and table is a view of them. No torch here.
"""

import difflib
import hashlib
import json
import math
import numbers
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from diffexp import files

Status = Literal["running", "done", "failed", "diverged", "interrupted"]

#: What a configuration is *not* identified by: where it is kept and watched (root, study, logger, cache,
#: checkpoint, hydra), what may change between two starts of the same run (fail_fast, trainer.max_steps:
#: raising it extends the run), the seed (it has a level of its own), and on which device it runs. Each entry
#: stands for itself and all below it. `compute.precision` is identity, since bfloat16 moves the numbers, and
#: `data.path` too: two files are two data sets, and a second directory costs less than a mixed one.
NOT_IDENTITY = (
    "root",
    "study",
    "seed",
    "logger",
    "checkpoint",
    "fail_fast",
    "cache",
    "hydra",
    "trainer.max_steps",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "metric.cache",
    "compute.channels_last",
    "compute.compile",
)

#: Files larger than this were not written by us as records; they are reported, not read.
LARGEST_RECORD = 16 * 2**20
LARGEST_METRICS = 512 * 2**20


def config_hash(config: Mapping[str, Any]) -> str:
    """Eight hex digits that name a configuration, whatever the order of its keys; see `NOT_IDENTITY`."""
    text = json.dumps(identity(config), sort_keys=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides what is computed, flat: {"optimizer.lr": 1e-4, ...}."""
    return {
        key: value
        for key, value in flat(config)
        if not any(key == left_out or key.startswith(f"{left_out}.") for left_out in NOT_IDENTITY)
    }


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested maps as (dotted key, value); lists and empty maps are leaves."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(cast(Mapping[str, Any], value), f"{name}.")
        else:
            yield name, value


@dataclass(frozen=True)
class RunDirectory:
    """The writing side of one run.

    Attributes:
        choices: The readable part of the directory's name, for example ("epsilon", "native", "linear_beta").
        config_hash: See `config_hash`.

    Raises:
        ValueError: `study` is not a plain name, so the run would leave `root`.
    """

    root: Path
    study: str
    choices: Sequence[str]
    config_hash: str
    seed: int

    def __post_init__(self) -> None:
        if self.study in ("", ".", "..") or re.search(r"[/\\\0]", self.study):
            raise ValueError(
                f"study={self.study} is not a plain name: a study is one folder under root={self.root}. "
                "Take for example study=which_target, and choose the place with root=."
            )

    @property
    def path(self) -> Path:
        return self.root / self.study / f"{readable(self.choices)}-{self.config_hash}" / f"seed={self.seed}"

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def record_file(self) -> Path:
        return self.path / "run.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def traceback_file(self) -> Path:
        return self.path / "traceback.txt"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def record(self) -> dict[str, Any]:
        """What run.json says now; empty before the first `claim`."""
        return _read_json(self.record_file) or {}

    def claim(self, record: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Make this directory the run's own, or take it up again.

        What an earlier start recorded and `record` does not mention (`created`, `final`) is kept.

        Raises:
            ValueError: The directory holds another configuration; nothing has been touched then.
        """
        self.refuse_another(config)
        self.path.mkdir(parents=True, exist_ok=True)
        files.write_text(self.config_file, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        self.write_record(**record)

    def write_record(self, **changes: object) -> None:
        """Change entries of run.json, atomically; `created` and `updated` are filled in (ISO 8601, UTC)."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        before = self.record
        if not before and self.record_file.exists():
            raise ValueError(f"{self.record_file} cannot be read, and is not overwritten. Move it away and try again.")
        record = {"created": now, **before, **changes, "updated": now}
        files.write_text(self.record_file, strict_json(record, indent=2) + "\n")

    def append_metrics(self, values: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl with a single write, so that a reader meets whole lines.

        Raises:
            ValueError: `images_seen`, the axis of every curve, is missing.
        """
        if "images_seen" not in values:
            raise ValueError(f"metrics without images_seen ({', '.join(values)}): add images_seen=<int>.")
        line = f"{strict_json(values)}\n".encode()
        with self.metrics_file.open("ab+", buffering=0) as file:
            if file.tell() > 0:  # "ab+" opens at the end
                file.seek(-1, 2)
                if file.read(1) != b"\n":  # an earlier start died within its last line
                    line = b"\n" + line
            file.write(line)

    def forget_after(self, images_seen: int) -> None:
        """Drop the lines of metrics.jsonl that a resumed run is about to write again, atomically."""
        if not self.metrics_file.exists():
            return
        kept: list[bytes] = []
        with self.metrics_file.open("rb") as lines:
            for line in lines:
                seen = _finite((_parse(line) or {}).get("images_seen"))
                if seen is not None and seen <= images_seen:
                    kept.append(line if line.endswith(b"\n") else line + b"\n")
        with files.replacing(self.metrics_file) as part:
            part.write_bytes(b"".join(kept))

    def refuse_another(self, config: Mapping[str, Any]) -> None:
        """Raise if the directory holds a run of another configuration.

        Raises:
            ValueError: It does; the message says in what the two differ.
        """
        if not self.config_file.exists():
            return
        there = identity(_read_yaml(self.config_file))
        here = identity(_as_read_back(config))
        absent = "(absent)"
        differences = [
            f"{key}: {there.get(key, absent)} there, {here.get(key, absent)} now"
            for key in sorted(there.keys() | here.keys())
            if key not in there or key not in here or there[key] != here[key]
        ]
        if differences:
            shown = "; ".join(differences[:8]) + ("; ..." if len(differences) > 8 else "")
            raise ValueError(
                f"{self.path} belongs to another configuration ({shown}). Its config.yaml was "
                "edited by hand, or "
                "two configurations share a hash. Take another study= or root=, or move that directory away."
            )


@dataclass(frozen=True)
class Run:
    """The reading side of one run: whatever is there, at any time of the run's life, taking little on trust.

    No path that a record contains is ever opened, and no link out of the study is followed.

    Attributes:
        path: The run's directory, `<study>/<name>/seed=<N>`.
        name: `<readable choices>-<hash>`, shared by the runs that differ only in their seed.
        seed: From the directory's name.
        record: run.json; empty if it is not there yet or cannot be read.
    """

    path: Path
    name: str
    seed: int
    record: Mapping[str, Any]

    @classmethod
    def at(cls, path: Path) -> "Run | None":
        """The run in the directory `path`; None if its name is not `seed=<N>`."""
        seed = re.fullmatch(r"seed=(-?\d{1,18})", path.name)
        if seed is None:
            return None
        file = _inside(path / "run.json", study=path.parent.parent)
        return cls(path, path.parent.name, int(seed[1]), (_read_json(file) if file else None) or {})

    @property
    def status(self) -> str:
        """A `Status`; "starting" where there is no record yet, "unreadable" where it is none of ours."""
        if not self.record:
            return "unreadable" if (self.path / "run.json").exists() else "starting"
        status = self.record.get("status")
        return status if status in ("running", "done", "failed", "diverged", "interrupted") else "unreadable"

    def text(self, key: str) -> str:
        """An entry of the record as a short line of text, "" if absent."""
        value = self.record.get(key)
        return "" if value is None else " ".join(str(value).split())[:1000]

    def number(self, key: str) -> float | None:
        """An entry of the record if it is a finite number."""
        return _finite(self.record.get(key))

    @cached_property
    def final(self) -> dict[str, float]:
        """The finite numbers of `final`."""
        return _numbers(self.record.get("final"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml, empty if it is not there or cannot be read."""
        file = self.file("config.yaml")
        if file is None or file.stat().st_size > LARGEST_RECORD:
            return {}
        try:
            return _read_yaml(file)
        except (OSError, ValueError):
            return {}

    def metrics(self) -> list[dict[str, float | None]]:
        """The lines of metrics.jsonl merged by `images_seen`, in its order; what was written last wins.

        Lines that are not a JSON object with `images_seen` are passed over: the last may be half written.
        Read afresh on each call, so that a large study need not be in memory at once. Non-finite numbers are
        None.
        """
        file = self.file("metrics.jsonl")
        merged: dict[float, dict[str, float | None]] = {}
        if file is None or file.stat().st_size > LARGEST_METRICS:
            return []
        with file.open("rb") as lines:
            for line in lines:
                values = _parse(line)
                images_seen = _finite(values.get("images_seen")) if values else None
                if values is None or images_seen is None:
                    continue
                merged.setdefault(images_seen, {}).update({key: _finite(value) for key, value in values.items()})
        return [merged[images_seen] for images_seen in sorted(merged)]

    def file(self, name: str) -> Path | None:
        """A regular file of this run, None if it is absent or lies, through links, outside the study."""
        return _inside(self.path / name, study=self.path.parent.parent)


def read_study(path: Path) -> list[Run]:
    """All runs in a study's folder, ordered by name and seed; those being created at this moment included."""
    return list(_runs(path))


def find_study(study: str, root: Path) -> Path:
    """The folder of a study named by its path or by its name under `root`.

    Raises:
        FileNotFoundError: There is no such folder; similar names and what is there are listed.
        ValueError: The folder holds no runs.
    """
    for folder in (Path(study).expanduser(), root / study):
        if folder.is_dir() and _holds_runs(folder):
            return folder
    for folder in (Path(study).expanduser(), root / study):
        if folder.is_dir():
            inside = [child.name for child in _folders(folder) if _holds_runs(child)]
            advice = f"It holds the studies {_listed(inside)}: name one of them."
            for above in (folder.parent, folder.resolve().parent.parent):
                if not inside and _holds_runs(above):
                    advice = f"It is part of the study {above}: name that."
            if not inside and not advice.startswith("It is part"):
                advice = f"{_under(root)} A study's runs are in <study>/<choices>-<hash>/seed=<N>/."
            raise ValueError(f"{folder} holds no runs, so there is nothing to report. {advice}")
    names = [child.name for child in _folders(root) if _holds_runs(child)]
    near = difflib.get_close_matches(study, names, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise FileNotFoundError(
        f"there is no study {study}: neither a folder of that name nor {root / study}.{hint} {_under(root)}"
    )


def readable(choices: Iterable[str]) -> str:
    """Choices as one name that is safe on every file system, at most 100 characters."""
    words = [re.sub(r"[^A-Za-z0-9_.=+]+", "_", choice).strip("._") for choice in choices]
    return "-".join(word for word in words if word)[:100].rstrip("-.") or "run"


def strict_json(value: object, indent: int | None = None) -> str:
    """`value` as JSON that every parser accepts: numbers that are not finite become null."""
    return json.dumps(_strict(value), allow_nan=False, ensure_ascii=False, indent=indent)


def _strict(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in cast(Sequence[Any], value)]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"{value!r} of type {type(value).__name__} is no JSON value: pass numbers, text, lists and maps.")


def _runs(study: Path) -> Iterator[Run]:
    for group in _folders(study):
        for folder in sorted(_folders(group), key=lambda child: (len(child.name), child.name)):
            run = Run.at(folder)
            if run and folder.resolve().is_relative_to(study.resolve()):
                yield run


def _inside(file: Path, study: Path) -> Path | None:
    return file if file.is_file() and file.resolve().is_relative_to(study.resolve()) else None


def _holds_runs(folder: Path) -> bool:
    return next(_runs(folder), None) is not None


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _under(root: Path) -> str:
    names = [child.name for child in _folders(root) if _holds_runs(child)]
    return f"Studies under {root}: {_listed(names)}." if names else f"There is no study under {root} yet."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _read_json(file: Path) -> dict[str, Any] | None:
    try:
        return _parse(file.read_bytes()) if file.stat().st_size <= LARGEST_RECORD else None
    except OSError:
        return None


def _parse(text: bytes) -> dict[str, Any] | None:
    try:
        value = _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        return None
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


def _not_a_number(_: str) -> None:
    """NaN and Infinity are no JSON; a file that has them nevertheless is read as if it had null."""


_DECODER = json.JSONDecoder(parse_constant=_not_a_number)


def _read_yaml(file: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast, where it was built in
    try:
        value = yaml.load(file.read_bytes(), Loader=loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{file} is no readable YAML ({' '.join(str(error).split())}).") from error
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _as_read_back(config: Mapping[str, Any]) -> dict[str, Any]:
    """What YAML makes of a configuration (tuples become lists, dates stay), for a like-for-like "
    "comparison."""
    return cast(dict[str, Any], yaml.safe_load(yaml.safe_dump(dict(config))))


def _numbers(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return {}
    found = {str(key): _finite(item) for key, item in cast(Mapping[Any, Any], value).items()}
    return {key: number for key, number in found.items() if number is not None}


def _finite(value: object) -> float | None:
    if type(value) is float:  # nearly all of a study's values
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
