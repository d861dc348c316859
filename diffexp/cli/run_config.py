"""What a trained run was told, as choices of the command line that takes it up again: `sampler=own`, `metric=own`.

So every setting of the run can be overridden one by one, completed and printed with `--cfg`, like any other.
"""

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from diffexp.cli.config import paths_quoted
from diffexp.cli.hydra_app import run_hydra_app
from diffexp.errors import UserError
from diffexp.io.files import why_unwritable
from diffexp.io.redact import printable
from diffexp.runs.directory import flat
from diffexp.runs.study import Run

OWN = "own"

# The rest of `sampling` is about when and how many a training run draws.
_SAMPLING = ("every", "grid")


def run_on_trained(
    task: Callable[[DictConfig], Any],
    name: str,
    argv: Sequence[str],
    groups: Sequence[str],
    keys: Sequence[str],
    *checks: Callable[[DictConfig], object],
) -> int:
    """`run_hydra_app` for a command that takes up the run named by `run=`.

    Args:
        task: As there.
        name: As there.
        argv: As there.
        groups: Get a choice `own`, the run's node of that name.
        keys: Top-level settings that are the run's where the command line says nothing.
        checks: As there.
    """
    words, config = paths_quoted(argv), dict[str, Any]()
    if typed := _run_typed(words):
        try:
            config = find_run(typed).config
        except (FileNotFoundError, ValueError) as error:
            if not any(word.startswith("-") for word in words):  # with --help or --cfg there is still much to show
                print(printable(f"diffexp {name}: error: {error}"), file=sys.stderr)
                return 2
    with _stored(config, groups, keys):
        return run_hydra_app(task, name, words, lambda cfg: find_run(cfg.run), *checks)


def find_run(typed: str) -> Run:
    """The run in the directory that `run=` named.

    Raises:
        UserError: There is none, or its configuration cannot be read.
        UserError: Its configuration asks for something that is not in it.
    """
    run = Run.at(Path(typed).expanduser().resolve())
    if run is None or not run.config:
        raise UserError(
            f"run={typed}: there is no run in that folder. Give a run's directory, "
            "<root>/<study>/<choices>-<hash>/seed=<N>; `diffexp report STUDY` lists them."
        )
    for key, value in flat(run.config):
        if "${" in str(value):  # ${oc.env:TOKEN} would read the environment of whoever opens the run
            raise UserError(f"run={typed}: {key} in its configuration is no plain value but {value}. Write the value.")
    return run


def output(cfg: DictConfig, name: str) -> Path:
    """Where a result goes: to `out=`, else to the file `name` of the run.

    Raises:
        UserError: Nothing can be written there.
    """
    out = Path(cfg.out) if cfg.out else find_run(cfg.run).place(name)
    if trouble := why_unwritable(out.parent):
        raise UserError(f"out={out}: {trouble}. Say with out= where it can.")
    return out


def _run_typed(words: Sequence[str]) -> str | None:
    named = [word for word in words if word.startswith("run=")]
    return str(OverridesParser.create().parse_override(named[-1]).value()) if named else None


@contextmanager
def _stored(config: Mapping[str, Any], groups: Sequence[str], keys: Sequence[str]) -> Generator[None, None, None]:
    """Puts the run's nodes where Hydra finds them: `<group>/own`, and `own` for the top level."""
    store = ConfigStore.instance()
    top = {key: config[key] for key in keys if config.get(key) is not None}
    if "sampling" in top:
        top["sampling"] = {key: value for key, value in top["sampling"].items() if key not in _SAMPLING}
    store.store(name=OWN, node=top, provider=OWN)
    for group in groups:
        node = cast(Mapping[str, Any], config.get(group) or {})
        store.store(group=group, name=OWN, node=_tied(node, config, keys), provider=OWN)
    try:
        yield
    finally:  # our own alone: Hydra adds its own on first use, and only once
        store.repo.pop(f"{OWN}.yaml")
        for group in groups:
            store.repo[group].pop(f"{OWN}.yaml")
            if not store.repo[group]:
                store.repo.pop(group)


def _tied(node: Mapping[str, Any], config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The node with what it shares with `sampling` and `cache` tied to them again, as its file in conf/ ties it."""
    sampling = cast(Mapping[str, Any], config.get("sampling") or {})
    shared = {key: (f"${{sampling.{key}}}", value) for key, value in sampling.items() if key not in _SAMPLING}
    if "cache" in keys:
        shared["cache"] = ("${cache}", config.get("cache"))
    return {key: shared[key][0] if key in shared and value == shared[key][1] else value for key, value in node.items()}
