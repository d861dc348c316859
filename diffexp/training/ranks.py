"""The processes of one run on several GPUs: rank 0 leads, the others work for it.

Rank 0 alone decides, writes and speaks. The others compute their share of each step's gradients and have nothing to
save, so they need no word in how a run ends: they leave when rank 0 says so, or when it is gone.

Who is who is said by torch's own variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), which torchrun
sets; a scheduler's are not read. What rank 0 and another say to each other goes over a connection of their own, beside
torch's: it ends when a process dies, in whatever way, and so it tells even who waits in a collective for ever.
"""

import contextlib
import ipaddress
import json
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any, cast

from diffexp.training.signals import SIGNALS

#: Rank 0 may sample for hours while the others wait for its next step; a death is noticed by other means.
_PATIENCE = timedelta(days=30)

#: Seconds that rank 0 has to end by itself once another process was lost: it may wait where no signal reaches it.
_GRACE = 15.0

_KEY = "diffexp/leader"


@dataclass(frozen=True)
class Place:
    """Which of the run's processes this is.

    Attributes:
        rank: From 0.
        world_size: How many there are.
        local_rank: From 0 on each machine.
        local_size: How many there are on this machine, as far as is known.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1


def place() -> Place:
    """Read from the environment; one process where it says nothing.

    Raises:
        ValueError: It contradicts itself.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    said = {name: os.environ[name] for name in names if name in os.environ}
    if said.get("WORLD_SIZE", "1") == "1":
        return Place()
    told = " ".join(f"{name}={value}" for name, value in said.items())
    try:
        rank, local = int(said["RANK"]), int(said.get("LOCAL_RANK", "0"))
        here = Place(rank, int(said["WORLD_SIZE"]), local, int(said.get("LOCAL_WORLD_SIZE", local + 1)))
    except (KeyError, ValueError):
        here = None
    if here is None or not 0 <= here.rank < here.world_size or here.local_rank < 0:
        raise ValueError(
            f"{told}: these variables of the environment say which of a run's processes this is, and torchrun sets "
            "RANK and WORLD_SIZE together. Start several processes with torchrun, or unset WORLD_SIZE."
        )
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise ValueError(f"{told} without {' and '.join(missing)}: start several processes with torchrun.")
    return here


class LostProcessError(Exception):
    """Another process of the run failed or died.

    Attributes:
        traceback: Of its own error; "" if it could not say why it died.
    """

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message)
        self.traceback = traceback


class Leader:
    """Rank 0's side.

    Attributes:
        place: Rank 0 of as many as there are.
        when_stuck: Called with what happened if this process cannot end by itself after it has lost another.
    """

    def __init__(self, here: Place) -> None:
        self.place = here
        self.when_stuck: Callable[[LostProcessError], object] = lambda error: None
        self._lost: LostProcessError | None = None
        self._connections: list[Connection] = []
        self._joined, self._noticed, self._ended = threading.Event(), threading.Event(), threading.Event()
        if here.world_size > 1:
            self._store, key = _store(), secrets.token_hex(32)
            self._listener = Listener(("", 0), authkey=key.encode())
            port = self._listener.address[1]
            self._store.set(_KEY, json.dumps({"host": _own_address(), "port": port, "key": key}))
            threading.Thread(target=self._watch, name="other ranks", daemon=True).start()

    def begin(self, step: int) -> None:
        """Have the others build what they need to go on from `step`."""
        self._tell({"begin": step})

    def join_group(self, device: str) -> None:
        """Meet the others in torch's process group, for "cuda" or "cpu"."""
        if self.place.world_size > 1:
            _join_group(self._store, self.place, device)

    def lost(self, patience: float = 0.0) -> LostProcessError | None:
        """Whether another process failed or died, and how; waits for the news for up to `patience` seconds."""
        if self.place.world_size > 1:
            self._noticed.wait(patience)
        return self._lost

    def finish(self) -> None:
        """All is written: the others may go, and torch's process group ends."""
        self._ended.set()
        self._tell({"end": None})
        if self.place.world_size > 1:
            _leave_group()

    def end(self, code: int) -> None:
        """Whatever the others are busy with, they leave with this exit code."""
        self._ended.set()
        self._tell({"end": code})

    def _tell(self, message: Mapping[str, object]) -> None:
        if self.place.world_size > 1:
            self._joined.wait(60)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.send_bytes(json.dumps(message).encode())

    def _watch(self) -> None:
        ranks: dict[Connection, int] = {}
        while len(ranks) < self.place.world_size - 1:
            with contextlib.suppress(OSError, EOFError, AuthenticationError):
                connection = self._listener.accept()
                ranks[connection] = int(connection.recv_bytes(20))
        self._connections = list(ranks)
        self._joined.set()
        connection = cast(Connection, wait(self._connections)[0])
        try:
            said = json.loads(connection.recv_bytes())
        except (OSError, EOFError):
            said = {"error": "died without a word (killed, or out of memory?)", "traceback": ""}
        if self._ended.is_set():
            return
        which = f"rank {ranks[connection]} of {self.place.world_size} processes"
        self._lost = LostProcessError(f"{which} {said['error']}", said["traceback"])
        self._noticed.set()
        os.kill(os.getpid(), signal.SIGTERM)
        if not self._ended.wait(_GRACE):
            self.when_stuck(self._lost)
            os._exit(1)


class Follower:
    """The side of every other rank: silent, deaf to signals, and gone as soon as rank 0 is.

    Attributes:
        place: Which rank.
    """

    def __init__(self, here: Place) -> None:
        self.place, self._store = here, _store()
        told = json.loads(self._store.get(_KEY))
        self._connection = Client((told["host"], told["port"]), authkey=told["key"].encode())
        self._connection.send_bytes(str(here.rank).encode())
        for number in SIGNALS:  # they reach every process, and rank 0 still needs this one to finish its step
            signal.signal(number, signal.SIG_IGN)
        self.begun = self._wait_for_begin()
        self._done = threading.Event()
        threading.Thread(target=self._obey, name="rank 0", daemon=True).start()

    def join_group(self, device: str) -> None:
        """Meet the others in torch's process group, for "cuda" or "cpu"."""
        _join_group(self._store, self.place, device)

    def wait_for_end(self) -> None:
        """Stay until rank 0 has judged and written all."""
        self._done.wait()
        _leave_group()

    def fail(self, error: str, traceback: str) -> None:
        """Tell rank 0, and leave."""
        with contextlib.suppress(OSError):
            self._connection.send_bytes(json.dumps({"error": error, "traceback": traceback}).encode())
        os._exit(1)

    def _hear(self) -> dict[str, Any]:
        try:
            return json.loads(self._connection.recv_bytes())
        except (OSError, EOFError):  # rank 0 was killed
            return {"end": 1}

    def _wait_for_begin(self) -> int:
        said = self._hear()
        if "begin" not in said:  # nothing to do, or nothing that can be done
            self._leave(said["end"])
        return int(said["begin"])

    def _obey(self) -> None:
        code = self._hear()["end"]
        if code is not None:
            self._leave(code)  # the main thread may wait for rank 0 in a step that rank 0 will never take
        self._done.set()

    def _leave(self, code: int) -> None:
        with contextlib.suppress(OSError):
            self._connection.poll(5)  # until rank 0 has left: who leaves first is who failed, in torchrun's eyes
        os._exit(code)


def _store() -> Any:
    import torch.distributed as dist

    return next(cast(Any, dist).rendezvous("env://", timeout=timedelta(minutes=5)))[0]


def _join_group(store: Any, here: Place, device: str) -> None:
    import torch.distributed as dist

    store.set_timeout(_PATIENCE)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        store=store,
        rank=here.rank,
        world_size=here.world_size,
        timeout=_PATIENCE,
    )


def _leave_group() -> None:
    import torch.distributed as dist

    dist.destroy_process_group()


def _own_address() -> str:
    """Where the others reach this machine."""
    master = os.environ["MASTER_ADDR"]
    family, _, _, _, there = socket.getaddrinfo(master, 9, socket.AF_INET, socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as towards:
        towards.connect(there)  # sends nothing
        here = str(towards.getsockname()[0])
    return master if ipaddress.ip_address(here).is_loopback else here


@contextlib.contextmanager
def silent() -> Generator[None]:
    """Nothing is printed: rank 0 says it."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):  # noqa: PTH123
        yield
