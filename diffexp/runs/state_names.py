"""What a run can be: the one list of states, and what each asks of a person."""

#: What run.json says under `status`.
STATUSES = ("running", "done", "failed", "diverged", "interrupted")

#: What a run is found to be, in the order of how much it asks for attention.
#:   unreadable    its run.json is none of diffexp's
#:   stopped       run.json says "running", and no process trains it: it was killed
#:   interrupted   a signal ended it; like a stopped one it goes on from its last checkpoint
#:   starting      a directory without run.json yet
#:   not started   no directory, or fewer images seen than now asked for
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

#: Those that make a command exit with 1: somebody must look.
NEED_ATTENTION = ("failed", "unreadable", "stopped")

#: Those that the same command trains, from the beginning or from the last checkpoint.
TO_TRAIN = ("failed", "stopped", "interrupted", "starting", "not started")


def trouble(state: str, error: str | None) -> str | None:
    """Why a run in this state needs attention, in one line; None for all others.

    Args:
        state: One of `STATES`.
        error: What run.json says under `error`.
    """
    return {
        "failed": error or "no reason was recorded; see traceback.txt",
        "stopped": "its process was killed",
        "unreadable": "not a diffexp run.json: move it away, and the same command starts the run over",
    }.get(state)
