"""The launcher as Hydra sees it. Hydra imports this at every start, so the work is in `_launch`."""

import importlib.util
import shutil
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class SlurmLauncher(Launcher):
    """Submits the jobs as one array, this program again for each, and waits until all have ended.

    submitit writes the submission and requeues jobs that ran out of time. How a job ended comes from the controller
    (`squeue`), never from the accounting, which a cluster may not have: a killed job is always noticed.
    What a task returns stays in its process, so a sweeper that optimises it needs another launcher.

    Args:
        submitit_folder: submitit's own files, and what the jobs print, on a disk that all nodes share.
        max_num_timeout: How often a job that runs out of time is requeued.
        poll_s: Seconds between two calls of `squeue`.
        skip, progress: As of `hydra/launcher=local`.
        resources: What `submitit.AutoExecutor` takes, without its prefix `slurm_`; null is the cluster's default.

    Raises:
        ValueError: This is no SLURM cluster, or submitit is not installed.
    """

    def __init__(
        self,
        submitit_folder: str,
        max_num_timeout: int = 0,
        poll_s: float = 10.0,
        skip: str | None = None,
        progress: str | None = None,
        **resources: Any,
    ) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise ValueError('hydra/launcher=slurm needs submitit: pip install "diffexp[slurm]".')
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise ValueError(
                "hydra/launcher=slurm: sbatch and srun are not installed here. Run the command on a cluster's login "
                "node, or use hydra/launcher=local, which runs the jobs on this machine."
            )
        if poll_s <= 0:
            raise ValueError(f"hydra.launcher.poll_s={poll_s}: must be more than 0 seconds, for example 10.")
        self.folder, self.max_num_timeout, self.poll_s = submitit_folder, max_num_timeout, poll_s
        self.skip, self.progress = skip, progress
        self.resources: dict[str, Any] = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in resources.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the sweep's configuration, as Hydra requires of a launcher."""
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return the outcome of each, in order."""
        from hydra_plugins.diffexp_slurm_launcher import _launch

        return _launch.launch(self, job_overrides, initial_job_idx)
