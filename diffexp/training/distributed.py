"""One run in several processes, one per GPU, started by torchrun: each takes its share of every batch.

    gradient = 1 / world_size  sum over ranks of  gradient of the mean loss of that rank's images

which is the gradient of the mean over the whole batch, since all shares have the same size. torch's
DistributedDataParallel averages the gradients. Rank 0 alone decides, writes, logs and prints; each process has a
Lightning Trainer of its own, so that rank 0 can validate, sample and save without the others' help.
"""

import contextlib
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from diffexp.errors import UserError
from diffexp.training.signals import SIGNALS

if TYPE_CHECKING:  # torch takes seconds to import, and the command line's help needs none
    from torch import Tensor, nn

#: Rank 0 may sample for hours while the others wait for its next step.
_TIMEOUT = timedelta(days=30)

#: Seconds that rank 0 has to end by itself once another process failed: it may wait in a collective for ever.
_GRACE = 15.0

_BEGIN, _END, _ERROR, _LEFT = "diffexp/begin", "diffexp/end", "diffexp/error", "diffexp/left"


class LostProcessError(Exception):
    """Another process of the run failed.

    Attributes:
        traceback: Of its own error.
    """

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message)
        self.traceback = traceback


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this is.

    Attributes:
        rank: From 0.
        size: How many there are.
        local_rank: From 0 on each machine.
        local_size: How many there are on this machine, as far as is known.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def from_environ(cls) -> "World":
        """From torch's variables (RANK, WORLD_SIZE, ...), which torchrun sets; a scheduler's are not read.

        Raises:
            UserError: They contradict each other.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        found = {name: os.environ[name] for name in names if name in os.environ}
        if found.get("WORLD_SIZE", "1") == "1":
            return cls()
        shown = " ".join(f"{name}={value}" for name, value in found.items())
        try:
            rank, local = int(found["RANK"]), int(found.get("LOCAL_RANK", "0"))
            world = cls(rank, int(found["WORLD_SIZE"]), local, int(found.get("LOCAL_WORLD_SIZE", local + 1)))
        except (KeyError, ValueError):
            world = None
        if world is None or not 0 <= world.rank < world.size or world.local_rank < 0:
            raise UserError(
                f"{shown}: these environment variables number a run's processes, and torchrun sets RANK and WORLD_SIZE "
                "together. Start several processes with torchrun, or unset WORLD_SIZE."
            )
        if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
            raise UserError(f"{shown} without {' and '.join(missing)}: start several processes with torchrun.")
        return world

    def share(self, batch: "Tensor") -> "Tensor":
        """Every `size`-th row: training times are stratified, so that neighbours are equally noisy."""
        return batch[self.rank :: self.size]

    def averaging(self, network: "nn.Module") -> "nn.Module":
        """The network, with gradients that are averaged over all ranks as they are computed."""
        if self.size == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network)

    def mean(self, value: "Tensor") -> "Tensor":
        """The mean of a number over all ranks; a GPU's queue is not waited for."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        value = value.clone()
        cast(Any, dist).all_reduce(value)
        return value / self.size


class Group:
    """Messages between the processes of a run beside torch's collectives, through the rendezvous store.

    Rank 0 publishes the step to begin at and, in the end, its exit code, whereupon the others exit at once,
    for they may wait for rank 0 in a step that it will never take. Another rank publishes the error that it
    failed with. With one process nothing happens.

    Attributes:
        world: Which process this is.
        on_stuck: On rank 0, called with the error if another process failed and this one cannot end by itself.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.on_stuck: Callable[[LostProcessError], object] = lambda error: None
        self._ended = threading.Event()
        if world.size > 1:
            import torch.distributed as dist

            self._store: Any = next(cast(Any, dist).rendezvous("env://", timeout=timedelta(minutes=5)))[0]
            threading.Thread(target=self._watch, name="other ranks", daemon=True).start()

    def begin(self, step: int) -> None:
        """On rank 0: the others may build what they need to resume from `step`."""
        self._set(_BEGIN, str(step))

    def wait_for_begin(self) -> int:
        """On the other ranks: the step to resume from. The process exits here if there is nothing to train."""
        while not self._has(_BEGIN):
            time.sleep(0.05)
        return int(self._store.get(_BEGIN))

    def join(self, device: str) -> None:
        """Meet the other ranks in torch's process group, for "cuda" or "cpu"."""
        if self.world.size > 1:
            import torch.distributed as dist

            self._store.set_timeout(_TIMEOUT)
            dist.init_process_group(
                "nccl" if device == "cuda" else "gloo",
                store=self._store,
                rank=self.world.rank,
                world_size=self.world.size,
                timeout=_TIMEOUT,
            )

    def end(self, code: int) -> None:
        """On rank 0: make the others exit with this code, and wait until they have read it."""
        self._ended.set()
        self._set(_END, str(code))
        left = [f"{_LEFT}/{rank}" for rank in range(1, self.world.size)]
        patience = time.monotonic() + 5.0
        while left and time.monotonic() < patience:  # the store may be this process's own
            left = [key for key in left if not self._has(key)]
            time.sleep(0.05)

    def wait_for_end(self) -> None:
        """On the other ranks, which have finished: exit when rank 0 ends."""
        self._ended.wait()

    def fail(self, error: Exception) -> None:
        """On the other ranks: send rank 0 the error, and exit."""
        sent = {"error": f"{type(error).__name__}: {error}", "traceback": "".join(traceback.format_exception(error))}
        if not self._has(_END):  # else the error is that rank 0 left
            self._set(_ERROR, json.dumps({"rank": self.world.rank, **sent}))
        os._exit(1)

    def lost(self, patience: float = 0.0) -> LostProcessError | None:
        """On rank 0: how another process failed, if one did; waits up to `patience` seconds for its message."""
        end = time.monotonic() + patience
        while self.world.size > 1:
            if self._has(_ERROR):
                failure = json.loads(self._store.get(_ERROR))
                which = f"rank {failure['rank']} of {self.world.size} processes"
                return LostProcessError(f"{which} failed: {failure['error']}", failure["traceback"])
            if time.monotonic() >= end:
                break
            time.sleep(0.1)
        return None

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            if self.world.rank:
                if self._has(_END):
                    code = int(self._store.get(_END))
                    self._set(f"{_LEFT}/{self.world.rank}", "")
                    os._exit(code)
            elif error := self.lost():  # NCCL would make this process wait for ever
                if not self._ended.wait(_GRACE):
                    self.on_stuck(error)
                    os._exit(1)
                return

    def _set(self, key: str, value: str) -> None:
        if self.world.size > 1:
            with contextlib.suppress(Exception):
                self._store.set(key, value)

    def _has(self, key: str) -> bool:
        try:
            return self._store.check([key])
        except Exception:  # the store is gone, and with it rank 0
            if self.world.rank:
                os._exit(1)
            return False


@contextlib.contextmanager
def silent_worker() -> Generator[None]:
    """For ranks other than 0: prints nothing, and ignores signals, which reach every process; rank 0 handles them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):  # noqa: PTH123
        yield
