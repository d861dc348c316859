"""A plan of a sweep: its runs, what each takes, and what all of them take together."""

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: What the command would meet, in the order of the table.
STATES = ("new", "resumable", "done", "diverged", "failed", "running", "unreadable")

#: Those that the command would train, or go on training.
TO_DO = ("new", "resumable", "failed")


@dataclass(frozen=True)
class Cost:
    """What a run of one configuration takes, as far as anybody knows before it runs.

    Attributes:
        network, data, batch_size, images: Of the configuration; images are those of a whole run.
        parameters, flops_per_step: See `workload.Workload`.
        device: What it would train on.
        seconds_per_image: Of training, validation included.
        seconds_after: From the last step to the end.
        timed: How that is known.
        bytes: `checkpoints`, `samples`, `metrics`: of one run.
        sized: How that is known.
        work: See `precedents.work`.
    """

    network: str
    data: str
    batch_size: int
    images: int
    parameters: int
    flops_per_step: int
    device: str
    seconds_per_image: float
    seconds_after: float
    timed: str
    bytes: Mapping[str, float]
    sized: str
    work: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """Of a whole run."""
        return self.images * self.seconds_per_image + self.seconds_after


@dataclass(frozen=True)
class Job:
    """One run of the command.

    Attributes:
        path: Its directory.
        state: One of `STATES`.
        images_seen: Images that it need not see again.
        cost: Which of the plan's costs is its.
    """

    path: str
    state: str
    images_seen: float
    cost: int


@dataclass
class Plan:
    """All jobs of one command.

    Attributes:
        launcher: The choice of hydra/launcher.
        at_a_time: Jobs that it runs at once.
        threads: For each of them, on a CPU; None: as many as torch likes.
    """

    jobs: list[Job] = field(default_factory=list[Job])
    costs: list[Cost] = field(default_factory=list[Cost])
    launcher: str = "basic"
    at_a_time: int = 1
    threads: int | None = None

    @property
    def states(self) -> dict[str, int]:
        """How many runs are in each state."""
        counts = Counter(job.state for job in self.jobs)
        return {state: counts[state] for state in STATES if counts[state]}

    @property
    def to_do(self) -> list[Job]:
        """The jobs that the command would train."""
        return [job for job in self.jobs if job.state in TO_DO]

    def seconds(self, job: Job) -> float:
        """What is left of the job; 0 where the command would leave it alone."""
        if job.state not in TO_DO:
            return 0.0
        cost = self.costs[job.cost]
        return (cost.images - job.images_seen) * cost.seconds_per_image + cost.seconds_after

    def wall_seconds(self) -> float:
        """Until the last job ends, if each starts, in their order, as soon as there is room."""
        slots = [0.0] * max(1, min(self.at_a_time, len(self.to_do)))
        for job in self.to_do:
            heapq.heapreplace(slots, slots[0] + self.seconds(job))
        return max(slots)

    def totals(self) -> dict[str, Any]:
        """Of what is left to do; bytes are those of all runs of the command, once they are done."""
        left = [self.costs[job.cost].images - job.images_seen for job in self.to_do]
        sizes = Counter[str]()
        for job in self.jobs:
            sizes.update(self.costs[job.cost].bytes)
        return {
            "runs": len(self.to_do),
            "images": sum(left),
            "flops": sum(
                image * self.costs[job.cost].flops_per_step / self.costs[job.cost].batch_size
                for job, image in zip(self.to_do, left, strict=True)
            ),
            "seconds": sum(self.seconds(job) for job in self.jobs),
            "wall_seconds": self.wall_seconds(),
            "bytes": dict(sizes),
        }
