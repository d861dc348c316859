"""Slots: the shares of a machine, each held by one job at most, whichever sweep has started it."""

import fcntl
import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Slot:
    """A share of this machine.

    Attributes:
        name: Sweeps that name it alike share it.
        environment: Variables of a job that holds it.
    """

    name: str
    environment: Mapping[str, str]


@dataclass(frozen=True)
class HeldSlot:
    """A slot that this sweep holds.

    Attributes:
        slot: The slot.
        handle: An open file with the lock. A job that inherits it holds the slot too: if the sweep is killed and the
            job is not, the slot stays taken until the job ends. A killed process leaves nothing to clean up.
    """

    slot: Slot
    handle: int

    def release(self) -> None:
        """Free the slot, even if a process that the job has left behind still has the file open."""
        fcntl.flock(self.handle, fcntl.LOCK_UN)
        os.close(self.handle)


def usable_cpus() -> list[int]:
    """The numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_slots(count: int) -> list[Slot]:
    """Named after the cores, so that sweeps to which a cluster gives different cores do not wait for each other."""
    cpus = usable_cpus()
    return [_share(f"cpu {cpus[index % len(cpus)]}", index // len(cpus), {}) for index in range(count)]


def gpu_slots(gpus: Sequence[str], per_gpu: int) -> list[Slot]:
    """The first share of every GPU before the second of any."""
    order = os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as nvidia-smi numbers them
    return [
        _share(f"gpu {gpu}", share, {"CUDA_DEVICE_ORDER": order, "CUDA_VISIBLE_DEVICES": gpu})
        for share in range(per_gpu)
        for gpu in gpus
    ]


def visible_gpus() -> list[str]:
    """The GPUs that this process can see: CUDA_VISIBLE_DEVICES, else what `nvidia-smi` lists, else nothing."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:  # CUDA reads it up to the first that is not a device
        ids = (word.strip() for word in visible.split(","))
        return list(itertools.takewhile(lambda gpu: gpu and not gpu.startswith("-"), ids))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^GPU (\d+):", listed.stdout, re.MULTILINE)


def slots_folder() -> Path:
    """Where the locks of this user on this machine are: never on a disk that machines share.

    Raises:
        PermissionError: Another user has made the folder.
    """
    folder = Path(tempfile.gettempdir()) / f"diffexp-slots-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is not yours, and sweeps meet there. Set TMPDIR to a folder of your own.")
    return folder


def first_free(slots: Sequence[Slot], folder: Path) -> HeldSlot | None:
    """The first free slot, locked; None if there is none."""
    for slot in slots:
        handle = os.open(folder / re.sub(r"[^\w-]", "_", slot.name), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return HeldSlot(slot, handle)
        except BlockingIOError:
            os.close(handle)
    return None


def _share(name: str, share: int, environment: Mapping[str, str]) -> Slot:
    return Slot(f"{name} ({share + 1})" if share else name, environment)
