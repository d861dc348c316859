"""A trained run's settings as choices of the commands that use it: `sampler=own`, `metric=own`.

So every setting of the run can be overridden one by one, completed and printed with `--cfg`, like any other. `run=` may
name several runs, and `study=` all that are finished: each job of the sweep has the settings of its own run.
"""

import glob
import os
import re
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from diffexp.cli.config import paths_quoted, quoted
from diffexp.cli.hydra_app import run_hydra_app
from diffexp.errors import UserError
from diffexp.io.files import why_unwritable
from diffexp.io.redact import printable
from diffexp.runs.config_keys import NOT_MEASURED
from diffexp.runs.directory import flat
from diffexp.runs.study import Run, find_study, read_study

OWN = "own"

_SWEEP = ("-m", "--multirun")


def run_on_trained(
    task: Callable[[DictConfig], Any],
    name: str,
    argv: Sequence[str],
    groups: Sequence[str],
    keys: Sequence[str],
    *checks: Callable[[DictConfig], object],
) -> int:
    """`run_hydra_app` for a command on the runs named by `run=` or `study=`.

    Args:
        task: As there.
        name: As there.
        argv: As there.
        groups: Get a choice `own`, the run's node of that name.
        keys: Top-level settings that are the run's unless the command line sets them.
        checks: As there.
    """
    try:
        words = with_runs(argv, _setting(argv, "weights") or "last")
    except UserError as error:
        words = list(argv)
        if not any(word.startswith("-") and word not in _SWEEP for word in words):  # --help and --cfg need no run
            print(printable(f"diffexp {name}: error: {error}"), file=sys.stderr)
            return 2
    with _stored(groups, keys, words) as store:
        return run_hydra_app(task, name, paths_quoted(words), lambda cfg: find_run(cfg.run), *checks, before=store)


def with_runs(words: Sequence[str], weights: str) -> list[str]:
    """The arguments with each run by its path: `study=` becomes its finished runs, and a pattern what matches it.

    A study, or several runs, make a sweep: -m is added where it is missing.

    Args:
        words: As on the command line.
        weights: Which of a run's weights are wanted.

    Raises:
        UserError: There is no such run or study, both are given, or the study has no finished run.
    """
    typed, study = _setting(words, "run"), _setting(words, "study")
    if study in (None, "", "null"):
        runs = _runs_typed(typed) if typed else []
    elif typed:
        raise UserError(f"run={typed} and study={study} cannot be combined: give one of them.")
    else:
        runs = _finished(study, weights)
    if not runs:
        return list(words)
    for run in runs:
        find_run(run)
    others = [word for word in words if not word.startswith(("run=", "study="))]
    several = len(runs) > 1 or typed is None
    sweep = ["-m"] if several and not any(word in _SWEEP for word in words) else []
    return [*sweep, f"run={','.join(map(quoted, runs))}", *others]


def _setting(words: Sequence[str], key: str) -> str | None:
    """The value of the last word that sets a key, as on the command line."""
    values = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
    return values[-1] if values else None


def _runs_typed(typed: str) -> list[str]:
    """The paths in a `run=`, whose characters may be quoted."""
    if typed[:1] in ("'", '"'):
        override = OverridesParser.create().parse_override(f"run={typed}")
        value: Any = override.value()
        return [str(each.text) for each in value.list] if override.is_sweep_override() else [str(value)]
    if Path(typed).expanduser().exists():
        return [typed]
    found: list[str] = []
    for part in typed.split(","):
        matches = sorted(glob.glob(os.path.expanduser(part))) if re.search(r"[*?[]", part) else [part]  # noqa: PTH111, PTH207
        runs = [match for match in matches if match == part or Run.at(Path(match).resolve())]
        if not runs:
            raise UserError(f"run={part}: no run matches this pattern, such as runs/STUDY/*/seed=0.")
        found += runs
    return found


def _finished(study: str, weights: str) -> list[str]:
    """The study's finished runs; the others are named on stderr."""
    folder = find_study(study.strip("'\""), Path("runs"))
    runs = read_study(folder)
    names = {"best": "best.safetensors"}.get(weights, "last.ckpt")
    done = [run for run in runs if run.status == "done" and run.file(f"checkpoints/{names}")]
    if not done:
        raise UserError(f"study={study}: none of its {len(runs)} runs is finished; name one with run= instead.")
    if left := len(runs) - len(done):
        print(f"{left} of the {len(runs)} runs of {folder} are not finished, and are left out", file=sys.stderr)
    return [str(run.path) for run in done]


def find_run(typed: str) -> Run:
    """The run in the directory that `run=` named.

    Raises:
        UserError: There is none, or its configuration cannot be read.
        UserError: Its configuration has an interpolation.
    """
    run = Run.at(Path(typed).expanduser().resolve())
    if run is None or not run.config:
        raise UserError(
            f"run={typed}: there is no run in that folder. Give a run's directory, "
            "<root>/<study>/<choices>-<hash>/seed=<N>; `diffexp report STUDY` lists them."
        )
    for key, value in flat(run.config):
        if "${" in str(value):  # ${oc.env:TOKEN} would read the environment of the user
            raise UserError(f"run={typed}: {key} in its configuration is no plain value but {value}. Write the value.")
    return run


def output(cfg: DictConfig, name: str) -> Path:
    """Where a result goes: to `out=`, else to the file `name` of the run.

    Raises:
        UserError: Nothing can be written there.
    """
    return require_writable(Path(cfg.out) if cfg.out else find_run(cfg.run).place(name))


def require_writable(file: Path) -> Path:
    """The same path.

    Raises:
        UserError: Its folder cannot be written.
    """
    if trouble := why_unwritable(file.parent):
        raise UserError(f"{file} cannot be written: {trouble}. Give another file with out=.")
    return file


def require_one_output(cfg: DictConfig) -> None:
    """Require that the jobs of a sweep do not write one file.

    Raises:
        UserError: This is one of several, and `out=` is given.
    """
    if cfg.out and HydraConfig.get().mode is RunMode.MULTIRUN:
        raise UserError(f"out={cfg.out}: every job of a sweep would write this file. Leave it out: each has its own.")


@contextmanager
def _stored(
    groups: Sequence[str], keys: Sequence[str], words: Sequence[str]
) -> Generator[Callable[[Sequence[str]], None], None, None]:
    """Gives what puts a job's run where Hydra finds it: its nodes as `<group>/own`, and `own` for the top level.

    Args:
        groups: See `run_on_trained`.
        keys: Likewise.
        words: The command's arguments, which name the run where a job does not, as in completion.
    """
    store = ConfigStore.instance()

    def put(overrides: Sequence[str]) -> None:
        try:
            typed = _setting(overrides, "run") or _setting(words, "run")
            run = find_run(_runs_typed(typed)[0]) if typed else None
        except UserError:
            run = None  # the job's check reports it
        config = run.config if run else dict[str, Any]()
        top = {key: config[key] for key in keys if config.get(key) is not None}
        if "sampling" in top:
            top["sampling"] = _measured(top["sampling"])
        store.store(name=OWN, node=top, provider=OWN)
        for group in groups:
            node = cast(Mapping[str, Any], config.get(group) or {})
            if run and group == "metric":
                node = _named(node, run.text("metric"))
            store.store(group=group, name=OWN, node=_tied(node, config, keys), provider=OWN)

    put([])
    try:
        yield put
    finally:  # our own alone: Hydra adds its own on first use, and only once
        store.repo.pop(f"{OWN}.yaml")
        for group in groups:
            store.repo[group].pop(f"{OWN}.yaml")
            if not store.repo[group]:
                store.repo.pop(group)


def _measured(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Without when and how many images a training run draws."""
    return {key: value for key, value in sampling.items() if f"sampling.{key}" not in NOT_MEASURED}


def _named(metric: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A metric of 0.1, whose one kind of features had no name, as it is written now."""
    features = metric.get("features")
    if not (isinstance(features, Mapping) and "_target_" in features):
        return metric
    return {**metric, "_convert_": "all", "features": {name: features}, "count": {name: metric.get("count")}}


def _tied(node: Mapping[str, Any], config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The node with what it shares with `sampling` and `cache` tied to them again, as its file in conf/ ties it."""
    sampling = cast(Mapping[str, Any], config.get("sampling") or {})
    shared = {key: (f"${{sampling.{key}}}", value) for key, value in _measured(sampling).items()}
    if "cache" in keys:
        shared["cache"] = ("${cache}", config.get("cache"))
    return {key: shared[key][0] if key in shared and value == shared[key][1] else value for key, value in node.items()}
