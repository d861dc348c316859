"""Reading a whole study back, at any time of its runs' lives. The writing side is `directory`. No torch here."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from diffexp.errors import UserError
from diffexp.io.jsonio import finite, parse_json, read_json, read_yaml
from diffexp.runs.state_names import STATUSES

#: Larger than any run of ours writes.
LARGEST_METRICS = 512 * 2**20


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
        return cls(path, path.parent.name, int(seed[1]), (read_json(file) if file else None) or {})

    @property
    def status(self) -> str:
        """One of `STATUSES`; "starting" where there is no record yet, "unreadable" where it is none of ours."""
        if not self.record:
            return "unreadable" if (self.path / "run.json").exists() else "starting"
        status = self.record.get("status")
        return status if status in STATUSES else "unreadable"

    def text(self, key: str) -> str:
        """An entry of the record as a short line of text, "" if absent."""
        value = self.record.get(key)
        return "" if value is None else " ".join(str(value).split())[:1000]

    def number(self, key: str) -> float | None:
        """An entry of the record if it is a finite number."""
        return finite(self.record.get(key))

    @cached_property
    def final(self) -> dict[str, float]:
        """The finite numbers of `final`."""
        return _numbers(self.record.get("final"))

    @cached_property
    def optimum(self) -> dict[str, float]:
        """What the best possible network measures where the run was validated; empty where it is not known."""
        return _numbers(self.record.get("optimum"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, or config.yaml in a directory of 0.1; empty if it is not there or cannot be read."""
        if file := self.file("config.json"):
            return read_json(file) or {}
        try:
            return read_yaml(file) if (file := self.file("config.yaml")) else {}
        except (OSError, UserError):
            return {}

    def metrics(self, having: str = "") -> list[dict[str, float | None]]:
        """The lines of metrics.jsonl merged by `images_seen`, in its order; what was written last wins.

        With `having`, only the lines with that metric: skipping the others unparsed is ten times as fast.

        Lines that are not a JSON object with `images_seen` are passed over: the last may be half written.
        Read afresh on each call, so that a large study need not be in memory at once. Non-finite numbers are
        None.
        """
        file, wanted = self.file("metrics.jsonl"), having.encode()
        merged: dict[float, dict[str, float | None]] = {}
        if file is None or file.stat().st_size > LARGEST_METRICS:
            return []
        with file.open("rb") as lines:
            for line in lines:
                values = parse_json(line) if wanted in line else None
                images_seen = finite(values.get("images_seen")) if values else None
                if values is None or images_seen is None:
                    continue
                merged.setdefault(images_seen, {}).update({key: finite(value) for key, value in values.items()})
        return [merged[images_seen] for images_seen in sorted(merged)]

    def file(self, name: str) -> Path | None:
        """A regular file of this run, None if it is absent or lies, through links, outside the study."""
        return _inside(self.path / name, study=self.path.parent.parent)

    def place(self, name: str) -> Path:
        """Where a new file of this run belongs.

        Raises:
            UserError: Its folder lies, through links, outside the study.
        """
        file = self.path / name
        if not file.parent.resolve().is_relative_to(self.path.parent.parent.resolve()):
            raise UserError(
                f"{file.parent} is a link out of the study, and is not followed. Give another file with out=."
            )
        return file


def read_study(path: Path) -> list[Run]:
    """All runs in a study's folder, ordered by name and seed; those being created at this moment included."""
    return list(_runs(path))


def find_study(study: str, root: Path) -> Path:
    """The folder of a study named by its path or by its name under `root`.

    Raises:
        UserError: There is no such folder; similar names and what is there are listed.
        UserError: The folder holds no runs.
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
            raise UserError(f"{folder} holds no runs, so there is nothing to report. {advice}")
    names = [child.name for child in _folders(root) if _holds_runs(child)]
    near = difflib.get_close_matches(study, names, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UserError(
        f"there is no study {study}: neither a folder of that name nor {root / study}.{hint} {_under(root)}"
    )


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


def _numbers(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return {}
    found = {str(key): finite(item) for key, item in cast(Mapping[Any, Any], value).items()}
    return {key: number for key, number in found.items() if number is not None}
