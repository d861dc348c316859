"""A run's directory: its identity and its state. The writing side; `study` reads it back.

    <root>/<study>/<readable choices>-<8 hex of the configuration>/seed=<N>/
        config.json     the resolved configuration; config.yaml is the same for people to read
        run.json        identity, status and final numbers; written atomically (see `io.files.replacing`)
        metrics.jsonl   one JSON object a line, each with `images_seen`
        heartbeat       touched while the run lives; see `liveness`
        samples/  checkpoints/  traceback.txt

These files are the record of a run; every logger, page and table is a view of them. No torch here.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import yaml

from diffexp.errors import UserError
from diffexp.io import files
from diffexp.io.jsonio import read_json, read_yaml, strict_json
from diffexp.io.redact import without_secrets
from diffexp.runs.config_keys import MEASUREMENT, NOT_IDENTITY, NOT_MEASURED, below


def config_hash(config: Mapping[str, Any]) -> str:
    """Eight hex digits that name a configuration, whatever the order of its keys; see `config_keys`."""
    return _hash(identity(config))


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides what is computed, flat: {"optimizer.lr": 1e-4, ...}."""
    return {key: value for key, value in flat(config) if not below(key, NOT_IDENTITY)}


def measurement(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides the numbers of a trained network's samples, flat."""
    return {
        key: value
        for key, value in flat(config)
        if below(key, MEASUREMENT) and not below(key, NOT_MEASURED) and key.rpartition(".")[2] != "_convert_"
    }


def samples_drawn_by(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of `measurement`, what decides the samples themselves. The name of a metric contains its features and count."""
    return {key: value for key, value in measurement(config).items() if not below(key, ("metric",))}


def samples_hash(config: Mapping[str, Any]) -> str:
    """Eight hex digits that name how samples are drawn: seeds of one configuration are averaged where it is alike."""
    return _hash(samples_drawn_by(config))


def _hash(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=True).encode()).hexdigest()[:8]


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The differences of two identities, in one line; "" for none."""
    absent = "(absent)"
    found = [
        f"{key}: {there.get(key, absent)} there, {here.get(key, absent)} now"
        for key in sorted(there.keys() | here.keys())
        if key not in there or key not in here or there[key] != here[key]
    ]
    return "; ".join(found[:8]) + ("; ..." if len(found) > 8 else "")


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
        UserError: `study` is not a plain name, so the run would leave `root`.
    """

    root: Path
    study: str
    choices: Sequence[str]
    config_hash: str
    seed: int

    def __post_init__(self) -> None:
        if self.study in ("", ".", "..") or re.search(r"[/\\\x00-\x1f\x7f]", self.study):
            raise UserError(
                f"study={self.study} is not a plain name: a study is one folder under root={self.root}. "
                "Take for example study=which_target, and choose the place with root=."
            )

    @cached_property
    def path(self) -> Path:
        return self.root / self.study / f"{readable(self.choices)}-{self.config_hash}" / f"seed={self.seed}"

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def record_file(self) -> Path:
        return self.path / "run.json"

    @cached_property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def traceback_file(self) -> Path:
        return self.path / "traceback.txt"

    @property
    def heartbeat_file(self) -> Path:
        return self.path / "heartbeat"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def checkpoint(self) -> Path:
        """All that the run resumes from."""
        return self.checkpoints / "last.ckpt"

    @property
    def best_weights(self) -> Path:
        return self.checkpoints / "best.safetensors"

    @property
    def final_weights(self) -> Path:
        return self.checkpoints / "final.safetensors"

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json; empty before the first `open`."""
        return read_json(self.record_file) or {}

    def open(self, record: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Create this directory for the run, or reopen it.

        What an earlier start recorded and `record` does not mention (`created`, `final`) is kept.

        Raises:
            UserError: The directory holds another configuration; nothing has been written then.
        """
        self.require_same_config(config)
        self.path.mkdir(parents=True, exist_ok=True)
        files.write_text(self.config_file, strict_json(config, indent=2) + "\n")
        for_people = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        files.write_text(self.path / "config.yaml", for_people)
        self.write_record(**record)

    def write_record(self, **changes: object) -> None:
        """Change entries of run.json, atomically; `created` and `updated` are filled in (ISO 8601, UTC)."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        before = self.record
        if not before and self.record_file.exists():
            raise UserError(f"{self.record_file} cannot be read, and is not overwritten. Move it away and try again.")
        record = {"created": now, **before, **changes, "updated": now}
        files.write_text(self.record_file, without_secrets(strict_json(record, indent=2)) + "\n")

    def append_metrics(self, values: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl with a single write, so that a reader meets whole lines.

        Raises:
            ValueError: `images_seen`, the axis of every curve, is missing.
        """
        if "images_seen" not in values:
            raise ValueError(f"metrics without images_seen ({', '.join(values)}): add images_seen=<int>.")
        line = f"{strict_json(values)}\n".encode()
        handle = os.open(self.metrics_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            while line:  # a full disk takes a part; the next write raises
                line = line[os.write(handle, line) :]
        finally:
            os.close(handle)

    def metrics_size(self) -> int:
        """Bytes of metrics.jsonl."""
        return self.metrics_file.stat().st_size if self.metrics_file.exists() else 0

    def sync_metrics(self) -> None:
        """Wait until metrics.jsonl is on the disk."""
        if self.metrics_file.exists():
            with self.metrics_file.open("rb") as file:
                os.fsync(file.fileno())

    def truncate_metrics(self, size: int) -> int:
        """Drop what was added to metrics.jsonl since it had `size` bytes: a resumed run writes it again.

        Returns:
            Bytes missing since; what is left is whole lines.
        """
        there = self.metrics_size()
        if there > size:
            os.truncate(self.metrics_file, size)
        elif 0 < there < size:
            os.truncate(self.metrics_file, self.metrics_file.read_bytes().rfind(b"\n") + 1)
        return max(0, size - there)

    def remove_partial_files(self) -> None:
        """Remove what writers that were killed left half written; only for the holder of the run's lock."""
        for part in self.path.rglob(".*.part"):
            part.unlink(missing_ok=True)

    def require_same_config(self, config: Mapping[str, Any]) -> None:
        """Require that the directory holds no run of another configuration.

        Raises:
            UserError: It does; the message names the differences.
        """
        there = read_config(self.path)
        if there is None:
            return
        if differs := differences(identity(there), identity(json.loads(strict_json(config)))):
            raise UserError(
                f"{self.path} belongs to another configuration ({differs}). Its config.json was edited by hand, or "
                "two configurations share a hash. Take another study= or root=, or move that directory away."
            )


def read_config(folder: Path) -> dict[str, Any] | None:
    """The configuration of the run in a directory; None if there is none.

    Raises:
        UserError: It cannot be read.
    """
    if (file := folder / "config.json").exists():
        if (config := read_json(file)) is None:
            raise UserError(f"{file} cannot be read as JSON. Move {folder} away, and the run starts over.")
        return config
    return read_yaml(file) if (file := folder / "config.yaml").exists() else None  # of 0.1


def readable(choices: Iterable[str]) -> str:
    """Choices as one name that is safe on every file system, at most 100 characters."""
    words = [re.sub(r"[^A-Za-z0-9_.=+]+", "_", choice).strip("._") for choice in choices]
    return "-".join(word for word in words if word)[:100].rstrip("-.") or "run"
