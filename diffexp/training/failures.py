"""How a failed run is recorded: in one line in run.json, in full in traceback.txt."""

import contextlib
import errno
import traceback
from pathlib import Path

from diffexp.errors import UserError
from diffexp.io.redact import without_secrets
from diffexp.runs.directory import RunDirectory
from diffexp.training.distributed import LostProcessError

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}


def record_failure(directory: RunDirectory, error: Exception) -> None:
    """Write that the run failed, and why, as far as the disk allows."""
    with contextlib.suppress(OSError, ValueError):  # the disk, or the record, may be what failed
        directory.traceback_file.write_text(failure_traceback(error), encoding="utf-8")
        directory.write_record(status="failed", error=failure_text(error, directory.path))


def failure_text(error: Exception, directory: Path) -> str:
    """Why a run failed, in one line of at most 500 characters."""
    text = explained_failure(error, directory) or f"{type(error).__name__}: {error}"
    return without_secrets(" ".join(text.split())[:500])


def explained_failure(error: Exception, directory: Path) -> str | None:
    """Why a run failed, where that needs no traceback; None for a bug."""
    if isinstance(error, UserError | LostProcessError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _DISK:
        return (
            f"cannot write {error.filename or f'into {directory}'} ({error.strerror}). Nothing that was finished is "
            "lost: once there is room, the same command goes on from the last checkpoint."
        )
    return None


def failure_traceback(error: Exception) -> str:
    """The traceback, that of another process where one is to blame, without passwords."""
    text = error.traceback if isinstance(error, LostProcessError) else "".join(traceback.format_exception(error))
    return without_secrets(text)
