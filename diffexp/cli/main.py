"""`diffexp COMMAND ...`: finds the command and passes the rest of the line to it.

Nothing heavy is imported here: help, errors and completion must appear at once.
"""

import importlib
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from diffexp import __version__
from diffexp.io.redact import printable

COMMANDS = {
    "explain": "compute, before training, how good a prediction could be",
    "check": "check that a target is right, such as one of your own",
    "plan": "list what a sweep would do and cost, without training it",
    "train": "train one network, or a whole sweep of them",
    "status": "show how the runs of a study are doing",
    "sample": "draw images from a trained network",
    "evaluate": "measure a trained network again",
    "report": "compare the runs of a study",
    "completion": "print a script that completes these commands in bash",
}

_INTERRUPTED, TERMINATED, _BROKEN_PIPE = 128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + 13
_ENDS = {_INTERRUPTED: "interrupted", TERMINATED: "terminated"}

_HELP = f"""\
usage: diffexp COMMAND [ARGUMENT ...]

What should a diffusion network predict?

commands:
{chr(10).join(f"  {name:<11} {about}" for name, about in COMMANDS.items())}

  diffexp COMMAND --help   what one command takes
  diffexp --version

examples:
  diffexp explain target=step_noise,epsilon data=digits
  diffexp plan experiment=quick
  diffexp train experiment=quick
  diffexp train -m target=epsilon,scaled_noise,x0,score seed=0,1,2 data=cifar10
  eval "$(diffexp completion bash)"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    2 for bad input, 130 after Ctrl-C, 143 after SIGTERM.

    Args:
        argv: The command and its arguments; those of this process if None.
    """
    command, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help"):
        print(_HELP, end="")
        return 0
    if command in ("-V", "--version"):
        print(f"diffexp {__version__}")
        return 0
    if command not in COMMANDS:
        print(printable(f"diffexp: error: {_unknown(command)}"), file=sys.stderr)
        return 2
    try:
        with _terminable():
            code = importlib.import_module(f"diffexp.cli.{command}").main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as in `diffexp status STUDY | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _BROKEN_PIPE
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    if code in _ENDS:
        print(f"diffexp {command}: {_ENDS[code]}", file=sys.stderr)
    return code


@contextmanager
def _terminable() -> Generator[None, None, None]:
    """Makes SIGTERM end the program as Ctrl-C does, through every `finally`, where nothing else handles it."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(TERMINATED)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _unknown(command: str) -> str:
    from diffexp.errors import did_you_mean

    if "=" in command or command.startswith("-"):
        return f"{command} comes after a command, such as: diffexp train {command}"
    return f"there is no command {command}.{did_you_mean(command, COMMANDS)} Commands: {', '.join(COMMANDS)}."
