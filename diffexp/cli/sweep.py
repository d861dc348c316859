"""The jobs that a command line will run, composed and checked before the first of them starts."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from diffexp.cli.chosen import record_several
from diffexp.cli.errors import COMPOSITION_ERRORS, composition_message, raise_in_full, user_message
from diffexp.cli.schema import typed
from diffexp.errors import UserError
from diffexp.io.progress import progress

T = TypeVar("T")
Check = Callable[[DictConfig], object]
Compose = Callable[[list[str]], DictConfig]
Before = Callable[[Sequence[str]], object]
"""Called with the overrides of a job before it is composed."""


class RememberingLoader(ConfigLoaderImpl):
    """Hydra's loader, which composes each command line once and checks the types of its settings.

    Composing takes 0.1 s, and a sweep composes each job for the check, for Hydra's own validation and for the
    launch. What runs is also what was checked, even if a file is edited meanwhile.
    """

    def __init__(self, config_search_path: ConfigSearchPath, before: Before | None = None) -> None:
        super().__init__(config_search_path)
        self._before = before
        self._composed: dict[tuple[object, ...], DictConfig] = {}
        self._groups: frozenset[str] | None = None

    def show_only(self, groups: Iterable[str]) -> None:
        """Hides every other group from help and completion: conf/ is shared by commands that take different ones."""
        self._groups = frozenset(groups)

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        found = super().get_group_options(group_name, results_filter, config_name, overrides)
        if group_name or results_filter is not ObjectType.GROUP or self._groups is None:
            return found
        return [group for group in found if group in self._groups]

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        key = (config_name, *overrides, run_mode, validate_sweep_overrides)
        if key not in self._composed:
            if self._before:
                self._before(overrides)
            self._composed[key] = typed(
                super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
            )
            record_several(self._composed[key], self._chosen)
        return copy.deepcopy(self._composed[key])

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        self._chosen: dict[str, list[str]] = {}
        for default in defaults:
            group, _, name = str(default.config_path).rpartition("/")
            self._chosen.setdefault(group, []).append(name)
        return super()._compose_config_from_defaults_list(defaults, repo)


def expand_sweep(hydra: Hydra, sweep: DictConfig) -> list[list[str]] | None:
    """The overrides of each job, in the order of the launch; None where a sweeper finds them as it goes.

    Args:
        hydra: The application.
        sweep: The sweep's own configuration, Hydra's node included.
    """
    if sweep.hydra.sweeper.get("_target_") != f"{BasicSweeper.__module__}.{BasicSweeper.__name__}":
        return None
    params: dict[str, str] = sweep.hydra.sweeper.params or {}
    typed = [*(f"{key}={value}" for key, value in params.items()), *sweep.hydra.overrides.task]
    overrides = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(typed)
    return BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]


def compose_top(hydra: Hydra, config_name: str, overrides: Sequence[str], mode: RunMode) -> DictConfig:
    """The configuration of the command line itself, Hydra's node included.

    Raises:
        UserError: It cannot be composed.
    """

    def compose(overrides: list[str]) -> DictConfig:
        return hydra.compose_config(config_name, overrides, mode, validate_sweep_overrides=mode is RunMode.RUN)

    try:
        return compose(list(overrides))
    except COMPOSITION_ERRORS as error:
        raise_in_full(error)
        raise UserError(composition_message(error, overrides, compose)) from error


def distinct(jobs: Sequence[list[str]]) -> list[str]:
    """Each job by the overrides that not all jobs have, as a person would read them; "" where there is none."""
    shared = set[str]().union(*jobs[:1]).intersection(*jobs)
    return [" ".join(word for word in job if word not in shared) for job in jobs]


def check_jobs(jobs: Sequence[list[str]], compose: Compose, checks: Sequence[Check]) -> None:
    """Composes every job and hands it to each check, in the surroundings that the job itself will see.

    Args:
        jobs: The overrides of each.
        compose: From a job's overrides to its configuration, Hydra's node included.
        checks: Each raises for a configuration that cannot be run. All jobs pass one before any meets the next,
            so put the cheap ones first.

    Raises:
        UserError: What is wrong with any of them, each thing once, with the number of jobs that have it.
    """
    composed: list[DictConfig] = []
    wrong: dict[str, list[str]] = {}
    names = distinct(jobs)
    for name, overrides in zip(names, _progress(jobs, "composing the jobs"), strict=True):
        try:
            composed.append(compose(overrides))
        except COMPOSITION_ERRORS as error:
            raise_in_full(error)
            wrong.setdefault(composition_message(error, overrides, compose), []).append(name)
    for check in (_require_all, *checks):
        for number, job in enumerate(_progress([] if wrong else composed, "checking the jobs")):
            if message := _check_job(job, number, check):
                wrong.setdefault(message, []).append(names[number])
        if wrong:
            raise UserError("\n".join(_lines(wrong, len(jobs))))


def _progress(jobs: Sequence[T], label: str) -> Iterable[T]:
    """Shown for a sweep alone: a single run is no job of anything."""
    return progress(jobs, len(jobs), label) if len(jobs) > 1 else jobs


def _require_all(job: DictConfig) -> None:
    if missing := sorted(OmegaConf.missing_keys(job)):
        raise UserError("\n".join(f"{key}=...: must be given, for it has no default." for key in missing))


def _check_job(job: DictConfig, number: int, check: Check) -> str | None:
    if job.hydra.mode is RunMode.MULTIRUN:
        with read_write(job.hydra.job), open_dict(job.hydra.job):
            job.hydra.job.update({"num": number, "id": str(number)})
    HydraConfig.instance().set_config(job)
    seen = copy.deepcopy(job)
    with read_write(seen), open_dict(seen):
        del seen["hydra"]
    try:
        check(seen)
    except Exception as error:
        raise_in_full(error)
        if message := user_message(error):
            return message
        error.add_note(f"This was the job {' '.join(job.hydra.overrides.task) or 'without overrides'}.")
        raise
    return None


def _lines(wrong: dict[str, list[str]], jobs: int) -> Iterator[str]:
    for message, of in wrong.items():
        yield message
        if jobs > 1:
            yield (f"  (all {jobs} jobs)" if len(of) == jobs else f"  ({len(of)} of {jobs} jobs, first: {of[0]})")
