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

    submitit writes the submission and requeues jobs that ran out of time. How a job ended is asked of the
    controller (`squeue`), never of the accounting, which a cluster may not have: a killed job is always noticed.
    What a task returns stays in its process, so a sweeper that optimises it needs another launcher.

    Args:
        submitit_folder: submitit's own files, and what the jobs print. It must be on a disk that all nodes share.
        max_num_timeout: How often a job that runs out of time is requeued.
        poll_s: Seconds between two questions to the controller.
        skip: As of `hydra/launcher=local`.
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
        **resources: Any,
    ) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise ValueError('hydra/launcher=slurm needs submitit: pip install "diffexp[slurm]".')
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise ValueError(
                "hydra/launcher=slurm: there is no sbatch and srun here. Type the command on a cluster's login node, "
                "or take hydra/launcher=local, which runs the jobs on this machine."
            )
        if poll_s <= 0:
            raise ValueError(f"hydra.launcher.poll_s={poll_s}: must be more than 0 seconds, for example 10.")
        self.folder, self.max_num_timeout, self.poll_s, self.skip = submitit_folder, max_num_timeout, poll_s, skip
        self.resources: dict[str, Any] = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in resources.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps the sweep's configuration, as Hydra asks of a launcher."""
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs and returns what became of each, in order."""
        from hydra_plugins.diffexp_slurm_launcher import _launch

        return _launch.launch(self, job_overrides, initial_job_idx)
