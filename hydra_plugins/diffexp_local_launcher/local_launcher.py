"""The launcher as Hydra sees it. Hydra imports this at every start, so the work is in `_launch`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class LocalLauncherConf:
    """The settings `hydra.launcher.*`, explained at `LocalLauncher`."""

    _target_: str = "hydra_plugins.diffexp_local_launcher.local_launcher.LocalLauncher"
    gpus: list[Any] | None = None
    jobs_per_gpu: int = 1
    jobs: int | None = None
    stagger: float | None = None
    skip: str | None = None
    progress: str | None = None
    fail_fast: bool = False


ConfigStore.instance().store(
    group="hydra/launcher", name="local", node=LocalLauncherConf, provider="diffexp_local_launcher"
)

_GPU = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")


class LocalLauncher(Launcher):
    """Runs every job as a process of its own: this program again, with that job's overrides.

    A job waits for a slot: a share of a GPU, or of the cores if there is no GPU. All sweeps of one user on one
    machine share its slots, so that two at once do not double the load. A job that fails does not stop the others,
    unless `fail_fast` is set; Ctrl-C or SIGTERM stops them all. The sweeper receives what a task returns, if JSON can
    represent it.

    Args:
        gpus: Their numbers in `nvidia-smi` (or UUIDs); each job sees the one of its slot. None: those that CUDA would
            see; none at all or []: the jobs share the cores.
        jobs_per_gpu: How many jobs share a GPU.
        jobs: Jobs of this sweep at a time; if None, as many as there are slots. Without a GPU, that is how many slots
            there are: as many as cores if None.
        stagger: Seconds between two starts; if None, 1 with GPUs and 0 without.
        skip: The dotted name of a function that is called with the configuration of each job, in the sweep's own
            process, while HydraConfig is that job's. If it returns a line, the line is printed and the job is not
            started; None means that the job must run.
        progress: The dotted name of a function `(iterable, total, label) -> iterator`, which passes the items on and
            reports progress while the jobs are composed.
        fail_fast: The first job that fails stops the others with SIGTERM, and no more are started.

    Raises:
        ValueError: A setting that cannot be.
    """

    def __init__(
        self,
        gpus: Sequence[Any] | None = None,
        jobs_per_gpu: int = 1,
        jobs: int | None = None,
        stagger: float | None = None,
        skip: str | None = None,
        progress: str | None = None,
        fail_fast: bool = False,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"hydra.launcher.jobs={jobs}: at least one job must run at a time. Set it to 1 or more.")
        if jobs_per_gpu < 1:
            raise ValueError(f"hydra.launcher.jobs_per_gpu={jobs_per_gpu}: must be at least 1.")
        if stagger is not None and not 0 <= stagger < float("inf"):
            raise ValueError(f"hydra.launcher.stagger={stagger}: must be a number of seconds, for example 1.")
        self.gpus = None if gpus is None else _identified(gpus)
        self.jobs_per_gpu, self.jobs, self.stagger, self.fail_fast = jobs_per_gpu, jobs, stagger, fail_fast
        self.skip, self.progress = skip, progress

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the sweep's configuration, as Hydra requires of a launcher."""
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return the outcome of each, in order."""
        from hydra_plugins.diffexp_local_launcher import _launch

        return _launch.launch(self, job_overrides, initial_job_idx)


def _identified(gpus: Sequence[Any]) -> list[str]:
    names = [str(gpu) for gpu in gpus] if not isinstance(gpus, str | int) else []
    if isinstance(gpus, str | int) or len(set(names)) < len(names) or not all(map(_GPU.fullmatch, names)):
        raise ValueError(
            f"hydra.launcher.gpus={gpus}: must be a list of GPUs, each once, by their numbers or UUIDs (`nvidia-smi "
            "-L`), for example gpus=[0,1]. To share a GPU between jobs, set jobs_per_gpu=2; gpus=[] uses no GPU."
        )
    return names
