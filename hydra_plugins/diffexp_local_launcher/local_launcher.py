"""The launcher as Hydra sees it. Hydra imports this at every start, so the work is in `_launch`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class LocalLauncherConf:
    """`hydra.launcher.jobs`: how many jobs run at a time; as many as there are cores if null.

    `hydra.launcher.skip`: a function of the application, by its dotted name, that says which jobs need no process.
    `hydra.launcher.fail_fast`: whether the first job that fails ends the others.
    """

    _target_: str = "hydra_plugins.diffexp_local_launcher.local_launcher.LocalLauncher"
    jobs: int | None = None
    skip: str | None = None
    fail_fast: bool = False


ConfigStore.instance().store(
    group="hydra/launcher", name="local", node=LocalLauncherConf, provider="diffexp_local_launcher"
)


class LocalLauncher(Launcher):
    """Runs every job as a process of its own: this program again, with that job's overrides.

    A job that fails does not stop the others, unless told to; Ctrl-C or SIGTERM ends them all. What a task
    returns stays in its process, so a sweeper that optimises the returned value needs another launcher.

    Args:
        jobs: Jobs at a time; as many as there are cores if None.
        skip: The dotted name of a function that is called with the configuration of each job, in the sweep's own
            process, with Hydra's node of that job at hand. What it returns is printed, and the job is not started;
            None where it must run.
        fail_fast: The first job that fails ends the others with SIGTERM, and no more are started.
    """

    def __init__(self, jobs: int | None = None, skip: str | None = None, fail_fast: bool = False) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"hydra.launcher.jobs={jobs}: at least one job must run at a time. Set it to 1 or more.")
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.jobs = jobs or self.cores
        self.skip = skip
        self.fail_fast = fail_fast

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps the sweep's configuration, as Hydra asks of a launcher."""
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs and returns what became of each, in order."""
        from hydra_plugins.diffexp_local_launcher import _launch

        return _launch.launch(self, job_overrides, initial_job_idx)
