"""From the overrides of each job of a sweep to the command that runs it: this program again, for that job alone."""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.errors import CompactHydraException
from hydra.types import HydraContext
from hydra.utils import get_method
from hydra.version import base_at_least
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write

from hydra_plugins.diffexp_local_launcher._sweep_log import say

# A job is one run, so overrides that say how to run many are left out of its command.
_OF_THE_SWEEP = ("hydra.mode", "hydra.launcher", "hydra.sweeper", "hydra.sweep.dir", "hydra.run.dir")


class JobError(CompactHydraException):
    """Jobs of a sweep ended with an exit code other than 0. Hydra prints its text without a traceback."""


class Outcome(JobReturn):
    """A job's JobReturn whose error is raised without a message of its own.

    Hydra's prints all overrides of the first failed job that a sweeper reads; the launcher has reported them all.
    """

    @property
    def return_value(self) -> Any:
        """What the task returned. Raises its error, if it failed."""
        if self.status == JobStatus.FAILED:
            raise self._return_value
        return super().return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


class Sweep(Protocol):
    """What is read of a launcher.

    Attributes:
        config: Of the sweep.
        hydra_context: Composes the configuration of each job.
        skip: The dotted name of the application's function `(cfg) -> str | None`: a line to print for a job that is
            finished, None for one that must run.
        progress: The dotted name of a function `(iterable, total, label) -> iterator` that reports progress.
    """

    config: DictConfig
    hydra_context: HydraContext
    skip: str | None
    progress: str | None


@dataclass(frozen=True)
class Run:
    """A job that needs to run.

    Attributes:
        number: Its number in the sweep.
        name: The overrides that distinguish it from the other jobs, or all of them if none does.
        command: The program and its arguments.
        environment: What the job's configuration sets (`hydra.job.env_set`).
        outcome: What Hydra receives.
    """

    number: int
    name: str
    command: Sequence[str]
    environment: dict[str, str]
    outcome: JobReturn

    def end(self, error: JobError | None) -> None:
        """Record how it ended."""
        self.outcome.status = JobStatus.FAILED if error else JobStatus.COMPLETED
        if error:
            self.outcome.return_value = error


def sweep_folder(sweep: Sweep) -> Path:
    """The sweep's own folder, `hydra.sweep.dir`."""
    return Path(os.path.abspath(str(sweep.config.hydra.sweep.dir)))  # noqa: PTH100


def plan(sweep: Sweep, job_overrides: Sequence[Sequence[str]], first: int) -> tuple[list[JobReturn], list[Run]]:
    """The outcomes of all jobs, in order, and the jobs that need to run; a line is printed for each that is finished.

    Args:
        sweep: The launcher.
        job_overrides: The overrides of each job.
        first: The number of the first of them in the sweep.

    Raises:
        JobError: The program cannot be started again as it was.
    """
    setup_globals()
    folder, every = sweep_folder(sweep), enumerate(job_overrides, first)
    if sweep.progress:
        every = get_method(sweep.progress)(every, len(job_overrides), "composing the jobs")
    outcomes = [_composed(sweep, list(overrides), number, folder) for number, overrides in every]
    program: list[str] = []
    runs: list[Run] = []
    for name, outcome in zip(_names(job_overrides), outcomes, strict=True):
        assert outcome.hydra_cfg is not None
        number = int(outcome.hydra_cfg.hydra.job.num)
        outcome.status, outcome.return_value = JobStatus.COMPLETED, None
        if line := finished(sweep, outcome):
            say(f"#{number} skipped: {name}\n    {line}")
            continue
        program = program or [*program_again(), *_search_path(sweep.config)]
        own: dict[str, str] = {key: str(value) for key, value in outcome.hydra_cfg.hydra.job.env_set.items()}
        runs.append(Run(number, name, [*program, *_overrides(outcome, folder)], own, outcome))
    return outcomes, runs


def finished(sweep: Sweep, job: JobReturn) -> str | None:
    """The application's line for a job that is finished; None if it must run."""
    if sweep.skip is None or job.hydra_cfg is None:
        return None
    HydraConfig.instance().set_config(job.hydra_cfg)
    return get_method(sweep.skip)(job.cfg)


def program_again() -> list[str]:
    """The command that started this program, up to `sys.argv[1:]`, the arguments that Hydra reads.

    For example `python my_app.py`, `python -m pkg.app` or `/bin/console-script subcommand`.

    Raises:
        JobError: The arguments were not those of this process (a notebook, a test).
    """
    arguments = sys.argv[1:]
    before = sys.orig_argv[: len(sys.orig_argv) - len(arguments)]
    if [*before, *arguments] != sys.orig_argv:
        raise JobError(
            "this launcher starts this program again for every job, but its arguments "
            f"{arguments} are not those of its command line {sys.orig_argv}. Use hydra/launcher=basic here."
        )
    return [sys.executable, *before[1:]]


def _names(job_overrides: Sequence[Sequence[str]]) -> list[str]:
    words = [filter_overrides(overrides) for overrides in job_overrides]
    shared = set[str]().union(*words[:1]).intersection(*words)
    return [" ".join(word for word in each if word not in shared) or " ".join(each) for each in words]


def _search_path(config: DictConfig) -> list[str]:
    """The flags of this command line that say where configurations lie."""
    args = get_args_parser().parse_intermixed_args(sys.argv[1:])
    flags = {"--config-path": args.config_path, "--config-name": args.config_name}
    if args.config_dir is not None:
        flags["--config-dir"] = os.path.join(config.hydra.runtime.cwd, args.config_dir)  # noqa: PTH118
    return [f"{flag}={value}" for flag, value in flags.items() if value is not None]


def _composed(sweep: Sweep, overrides: list[str], number: int, folder: Path) -> JobReturn:
    """The JobReturn of a job, but for its status and value."""
    job: Any = sweep.hydra_context.config_loader.load_sweep_config(sweep.config, overrides)
    with open_dict(job.hydra.job):
        job.hydra.job.num = number
        job.hydra.job.id = str(number)
    HydraConfig.instance().set_config(job)
    directory = str(folder / str(job.hydra.sweep.subdir))
    with read_write(job.hydra.runtime), open_dict(job.hydra.runtime):
        job.hydra.runtime.output_dir = directory
    moves = job.hydra.job.chdir if job.hydra.job.chdir is not None else not base_at_least("1.2")
    return Outcome(
        overrides=overrides,
        cfg=OmegaConf.masked_copy(job, [key for key in job if key != "hydra"]),
        hydra_cfg=OmegaConf.masked_copy(job, ["hydra"]),
        working_dir=directory if moves else job.hydra.runtime.cwd,
        task_name=job.hydra.job.name,
    )


def _overrides(job: JobReturn, folder: Path) -> list[str]:
    """The job's overrides as those of a single run that writes where the sweep would."""
    assert job.hydra_cfg is not None
    hydra: DictConfig = job.hydra_cfg.hydra
    written = [*_words(hydra.overrides.hydra), *_words(hydra.overrides.task)]
    kept = [
        str(override.input_line)
        for override in OverridesParser.create().parse_overrides(written)
        if not f"{override.key_or_group.replace('/', '.')}.".startswith(tuple(f"{key}." for key in _OF_THE_SWEEP))
    ]
    return [
        *kept,
        "hydra.mode=RUN",
        f"hydra.job.num={hydra.job.num}",
        f"hydra.job.id={hydra.job.id}",
        f"hydra.sweep.dir={_quoted(folder)}",
        f"hydra.run.dir={_quoted(hydra.runtime.output_dir)}",
    ]


def _words(overrides: ListConfig) -> list[str]:
    """As they were written: reading them one by one would resolve their interpolations."""
    return cast(list[str], OmegaConf.to_container(overrides))


def _quoted(path: object) -> str:
    plain = re.fullmatch(r"[\w/.-]+", str(path), re.ASCII)
    return str(path) if plain else QuotedString(str(path), Quote.double).with_quotes()
