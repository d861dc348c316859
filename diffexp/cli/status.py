"""`diffexp status STUDY`: how every run is doing, at any time, from the files alone."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffexp.errors import UserError
from diffexp.io.redact import printable

if TYPE_CHECKING:
    from diffexp.runs.run_state import RunState

#: Runs listed without --all; where there are more, those that are done are only counted.
MOST = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if all went well, 2 after a one-line explanation on stderr.

    Ctrl-C is how --watch ends, as watch(1) and top(1) do, so it also returns 0.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.watch:
            _watch(options)
        else:
            _print(options, *_states(options))
    except BrokenPipeError:  # a reader such as head closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UserError, OSError) as error:
        print(printable(f"diffexp status: error: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if not options.watch:
            raise
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffexp status",
        description="How every run of a study is doing: state, progress, last metrics, time left, device.",
        epilog="A run recorded as running that no process works on is shown as stopped: like an interrupted one it "
        "resumes from its last checkpoint when its command is repeated.",
    )
    parser.add_argument("study", metavar="STUDY", help="a study's folder, or its name under --root")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="where studies are kept (default: runs)")
    parser.add_argument("--all", action="store_true", help=f"list every run, however many (default: at most {MOST})")
    parser.add_argument("--json", action="store_true", help="everything as JSON, times in seconds")
    parser.add_argument("--watch", action="store_true", help="refresh until Ctrl-C")
    parser.add_argument("--interval", type=_seconds, default=5.0, metavar="SECONDS",
                        help="between two refreshes of --watch (default: 5)")  # fmt: skip
    return parser


def _seconds(text: str) -> float:
    if not 0.1 <= (seconds := float(text)) <= 86_400:
        raise argparse.ArgumentTypeError(f"{text}: take 0.1 to 86400 seconds.")
    return seconds


def _states(options: argparse.Namespace) -> tuple[str, "list[RunState]"]:
    from diffexp.runs.run_state import study_states
    from diffexp.runs.study import find_study

    study = find_study(options.study, options.root)
    return study.resolve().name, study_states(study)


def _print(options: argparse.Namespace, study: str, runs: "list[RunState]") -> None:
    from rich.console import Console

    from diffexp.io.jsonio import strict_json
    from diffexp.report.status import status_json, status_lines

    if options.json:
        text = strict_json(status_json(study, runs), indent=None if options.watch else 2)
        print(text.encode(errors="backslashreplace").decode(), flush=True)  # names that are no UTF-8
        return
    console = Console(highlight=False)
    for line in status_lines(study, runs, None if options.all else MOST):
        console.print(line, soft_wrap=True)


def _watch(options: argparse.Namespace) -> None:
    from rich.console import Console, Group
    from rich.live import Live

    from diffexp.io.redact import on_one_line
    from diffexp.report.status import overview, status_lines

    console = Console(highlight=False)
    if options.json or not console.is_terminal:
        while True:
            study, runs = _states(options)
            if options.json:
                _print(options, study, runs)
            else:
                print(f"{time.strftime('%H:%M:%S')}  {on_one_line(study)}: {overview(runs)}", flush=True)
            time.sleep(options.interval)
    found = _states(options)
    try:
        with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
            while True:
                most = None if options.all else max(1, min(MOST, console.height - 5))
                lines = list(status_lines(*found, most))
                for line in lines:
                    line.no_wrap, line.overflow = True, "ellipsis"
                live.update(Group(*lines), refresh=True)
                time.sleep(options.interval)
                found = _states(options)
    finally:
        _print(options, *found)
