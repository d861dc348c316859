"""The states of a run, and which of them need attention."""

#: `status` in run.json.
STATUSES = ("running", "done", "failed", "diverged", "interrupted")

#: The state of a run as found from its files, those that need attention first.
#:   unreadable    its run.json is none of diffexp's
#:   stopped       run.json has "running", and no process trains it: it was killed
#:   interrupted   a signal ended it; like a stopped one it goes on from its last checkpoint
#:   starting      a directory without run.json yet
#:   not started   no directory, or fewer images seen than now requested
STATES = (
    "failed",
    "unreadable",
    "stopped",
    "interrupted",
    "running",
    "starting",
    "not started",
    "diverged",
    "done",
)

#: Those that make a command exit with 1.
NEED_ATTENTION = ("failed", "unreadable", "stopped")

#: Those that the same command trains, from the beginning or from the last checkpoint.
TO_TRAIN = ("failed", "stopped", "interrupted", "starting", "not started")


def trouble(state: str, error: str | None) -> str | None:
    """Why a run in this state needs attention, in one line; None for all others.

    Args:
        state: One of `STATES`.
        error: `error` in run.json.
    """
    return {
        "failed": error or "no reason was recorded; see traceback.txt",
        "stopped": "its process was killed",
        "unreadable": "not a diffexp run.json: move it away, and the same command starts the run over",
    }.get(state)
