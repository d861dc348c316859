"""Files that are either whole or absent: atomic writes, locks, the cache folder."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Generator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A temporary path beside `path` that takes its place if the block succeeds.

    A reader sees the old file or the new one, never a part; a writer that dies leaves the old one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold the lock that belongs to `path`, waiting for whoever holds it; released even by SIGKILL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        yield


@contextlib.contextmanager
def try_locked(path: Path, seconds: float = 1.0) -> Generator[bool]:
    """Whether the lock that belongs to `path` could be had within some seconds, longer than `is_locked` looks; held."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether somebody on this machine holds the lock that belongs to `path`; leaves nothing behind."""
    try:
        with Path(f"{path}.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def why_unwritable(path: Path) -> str | None:
    """Why nothing could be written into the folder `path`, which need not exist yet; None where it could."""
    there = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    if not there.is_dir():
        return f"{there} is not a folder"
    if not os.access(there, os.W_OK | os.X_OK):
        read_only = os.statvfs(there).f_flag & os.ST_RDONLY
        return f"{there} cannot be written ({'a read-only file system' if read_only else 'no permission'})"
    return None


def cache_folder(cache: str | Path | None = None) -> Path:
    """The one folder for things computed once: `cache`, else $DIFFEXP_CACHE, else ~/.cache/diffexp."""
    return Path(cache or os.environ.get("DIFFEXP_CACHE") or Path.home() / ".cache" / "diffexp").expanduser()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
