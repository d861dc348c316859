"""One launch: from the overrides of each job to its command, and from its exit code to Hydra's JobReturn."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.errors import CompactHydraException
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hydra_plugins.diffexp_local_launcher._narrator import Narrator, say
from hydra_plugins.diffexp_local_launcher._processes import Job, StoppedError, run_all

if TYPE_CHECKING:
    from hydra_plugins.diffexp_local_launcher.local_launcher import LocalLauncher

# A job is one run, so what told the sweep how to run many is left out of its command.
_OF_THE_SWEEP = ("hydra.mode", "hydra.launcher", "hydra.sweeper", "hydra.sweep.dir", "hydra.run.dir")


class JobError(CompactHydraException):
    """Jobs of a sweep ended with an exit code other than 0. Hydra prints its text without a traceback."""


def launch(launcher: "LocalLauncher", job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Runs a batch of jobs, so many at a time, and says when each starts and ends.

    Args:
        launcher: The sweep's settings.
        job_overrides: The overrides of each job.
        first: The number of the first of them in the sweep.

    Raises:
        JobError: The program cannot be started again as it was.
        KeyboardInterrupt, SystemExit: A signal ended the jobs.
    """
    setup_globals()
    sweep: Any = launcher.config
    folder = Path(os.path.abspath(str(sweep.hydra.sweep.dir)))  # noqa: PTH100
    logs = folder / "logs"
    returns: list[Any] = [
        _composed(launcher, list(overrides), first + index, folder) for index, overrides in enumerate(job_overrides)
    ]
    names = {each.hydra_cfg.hydra.job.num: _named(o) for each, o in zip(returns, job_overrides, strict=True)}
    todo = [each for each in returns if not _skipped(launcher, each, names)]
    if not todo:
        return returns
    logs.mkdir(parents=True, exist_ok=True)
    program = [*program_again(), *_search_path(sweep)]
    numbers: list[int] = [each.hydra_cfg.hydra.job.num for each in todo]
    jobs = [
        Job(
            command=[*program, *_overrides(each, folder)],
            folder=sweep.hydra.runtime.cwd,
            environment=_environment(each, launcher),
            log=logs / f"{number}.log",
        )
        for number, each in zip(numbers, todo, strict=True)
    ]
    narrator = Narrator([job.log for job in jobs], numbers, [names[number] for number in numbers], launcher.jobs)
    say(f"{len(jobs)} jobs, {min(launcher.jobs, len(jobs))} at a time; what they print goes to {logs}")
    try:
        codes = run_all(jobs, launcher.jobs, narrator.started, narrator.ended, launcher.fail_fast)
    except StoppedError as stopped:
        say(f"{stopped}: all jobs were ended; {narrator.done} of {len(jobs)} had finished")
        if str(stopped) == "SIGINT":
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stopped.signal) from None
    failed = [number for number, code in zip(numbers, codes, strict=True) if code]
    for job, code in zip(todo, codes, strict=True):
        job.status = JobStatus.COMPLETED if code == 0 else JobStatus.FAILED
        if code != 0:
            job.return_value = JobError(_summary(failed, len(jobs), logs))
    return returns


def _skipped(launcher: "LocalLauncher", job: Any, names: Mapping[int, str]) -> bool:
    """Whether the application says that the job needs no process; its words are printed."""
    line = None
    if launcher.skip is not None:
        HydraConfig.instance().set_config(job.hydra_cfg)
        line = get_method(launcher.skip)(job.cfg)
    job.status, job.return_value = JobStatus.COMPLETED, None
    if line is not None:
        number = job.hydra_cfg.hydra.job.num
        say(f"#{number} skipped: {names[number]}\n    {line}")
    return line is not None


def program_again() -> list[str]:
    """The command that started this program, up to where Hydra's arguments begin.

    Hydra reads `sys.argv[1:]`, so what stands before that in the command line is the program:
    `python my_app.py`, `python -m pkg.app`, `/bin/console-script subcommand`.

    Raises:
        JobError: The arguments were not those of this process (a notebook, a test).
    """
    arguments = sys.argv[1:]
    before = sys.orig_argv[: len(sys.orig_argv) - len(arguments)]
    if [*before, *arguments] != sys.orig_argv:
        raise JobError(
            "hydra/launcher=local starts this program again for every job, but its arguments "
            f"{arguments} are not those of its command line {sys.orig_argv}. Use hydra/launcher=basic here."
        )
    return [sys.executable, *before[1:]]


def _search_path(sweep: DictConfig) -> list[str]:
    """The flags of this command line that say where configurations lie."""
    args = get_args_parser().parse_intermixed_args(sys.argv[1:])
    flags = {"--config-path": args.config_path, "--config-name": args.config_name}
    if args.config_dir is not None:
        flags["--config-dir"] = os.path.join(sweep.hydra.runtime.cwd, args.config_dir)  # noqa: PTH118
    return [f"{flag}={value}" for flag, value in flags.items() if value is not None]


def _composed(launcher: "LocalLauncher", overrides: list[str], number: int, folder: Path) -> JobReturn:
    """What Hydra will know of the job, but for its outcome."""
    job: Any = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, overrides)
    with open_dict(job.hydra.job):
        job.hydra.job.num = number
        job.hydra.job.id = str(number)
    HydraConfig.instance().set_config(job)
    directory = str(folder / str(job.hydra.sweep.subdir))
    with read_write(job.hydra.runtime), open_dict(job.hydra.runtime):
        job.hydra.runtime.output_dir = directory
    return JobReturn(
        overrides=overrides,
        cfg=OmegaConf.masked_copy(job, [key for key in job if key != "hydra"]),
        hydra_cfg=OmegaConf.masked_copy(job, ["hydra"]),
        working_dir=directory,
        task_name=job.hydra.job.name,
    )


def _overrides(job: JobReturn, folder: Path) -> list[str]:
    """The job's overrides as those of a single run that writes where the sweep would."""
    assert job.hydra_cfg is not None
    hydra: DictConfig = job.hydra_cfg.hydra
    typed: list[str] = [*hydra.overrides.hydra, *hydra.overrides.task]
    kept = [
        str(override.input_line)
        for override in OverridesParser.create().parse_overrides(typed)
        if not f"{override.key_or_group.replace('/', '.')}.".startswith(tuple(f"{key}." for key in _OF_THE_SWEEP))
    ]
    return [
        *kept,
        "hydra.mode=RUN",
        f"hydra.job.num={hydra.job.num}",
        f"hydra.job.id={hydra.job.id}",
        f"hydra.sweep.dir={_quoted(folder)}",
        f"hydra.run.dir={_quoted(job.working_dir)}",
    ]


def _quoted(path: object) -> str:
    plain = re.fullmatch(r"[\w/.-]+", str(path), re.ASCII)
    return str(path) if plain else QuotedString(str(path), Quote.double).with_quotes()


def _environment(job: JobReturn, launcher: "LocalLauncher") -> dict[str, str]:
    """Set before the job's first import, for a library reads its number of threads once.

    Left alone, every job would start one thread for each core: many times slower than sharing the cores.
    """
    assert job.hydra_cfg is not None
    threads = str(max(1, launcher.cores // launcher.jobs))
    own: dict[str, str] = {key: str(value) for key, value in job.hydra_cfg.hydra.job.env_set.items()}
    return {"OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1", **os.environ, **own}


def _named(overrides: Sequence[str]) -> str:
    return " ".join(filter_overrides(overrides))


def _summary(failed: list[int], jobs: int, folder: Path) -> str:
    logs = ", ".join(f"{number}.log" for number in failed)
    return f"{len(failed)} of {jobs} jobs failed. What they printed is in {folder}: {logs}"
