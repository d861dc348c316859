"""What a job's task returns, passed from its process to the sweep as JSON, for sweepers that optimise it."""

import json
import numbers
import os
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

#: The environment variable that names the file, and the override that makes Hydra write it.
FILE = "DIFFEXP_LOCAL_LAUNCHER_RETURNED"
CALLBACK = f"+hydra.callbacks.returned._target_={__name__}.Returned"


class Returned(Callback):
    """Writes what the task returned, if JSON can represent it, to the file that `FILE` names."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Hydra calls this in the job's process."""
        if (file := os.environ.get(FILE)) and job_return.status == JobStatus.COMPLETED:
            try:
                text = json.dumps(job_return.return_value, default=_number)
            except (TypeError, ValueError, RecursionError):
                return
            Path(file).write_text(text)


def read_returned(file: Path) -> Any:
    """What the task returned; None if that was None or cannot be JSON."""
    return json.loads(file.read_text()) if file.exists() else None


def _number(value: object) -> float:
    if isinstance(value, numbers.Real):  # NumPy's are
        return float(value)
    raise TypeError
