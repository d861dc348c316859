"""`diffexp report STUDY`: a study summed up, at any time, from its run directories alone."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffexp.errors import UserError
from diffexp.io.redact import printable

if TYPE_CHECKING:
    from diffexp.report.summary import Summary

FORMATS = ("table", "html", "csv", "markdown", "json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if all went well, 2 after a one-line explanation on stderr."""
    options = _parser().parse_args(arguments)
    try:
        _report(options)
    except (UserError, OSError) as error:
        print(printable(f"diffexp report: error: {error}"), file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffexp report",
        description="Sum up a study: means and intervals over seeds, paired differences, and the page.",
        epilog="Without --format: prints the table, writes report.html, summary.csv and summary.md there.",
    )
    parser.add_argument("study", metavar="STUDY", help="a study's folder, or its name under --root")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="where studies are kept (default: runs)")
    parser.add_argument("--baseline", metavar="NAME", help="a target, or choices as space=native (default: epsilon)")
    parser.add_argument("--select", metavar="METRIC", default="val/belief_eps",
                        help="what picks a row's best learning rate (default: val/belief_eps)")  # fmt: skip
    for way in ("higher", "lower"):
        parser.add_argument(f"--{way}", metavar="METRIC", action="append", default=[],
                            help=f"rank also by this metric of one's own, of which {way} is better")  # fmt: skip
    parser.add_argument("--figure", type=Path, metavar="FILE", action="append", default=[],
                        help="a Python file with figures of one's own, for the page")  # fmt: skip
    parser.add_argument("--format", choices=FORMATS, help="give this one only, on standard output or as --output")
    parser.add_argument("--output", type=Path, metavar="PATH", help="a file to write --format to")
    return parser


def _report(options: argparse.Namespace) -> None:
    from diffexp.io import files
    from diffexp.report.figures import load_figures
    from diffexp.report.summary import summarise
    from diffexp.runs.study import find_study

    if options.output and not options.format:
        raise UserError(f"--output {options.output} without --format: add --format {'|'.join(FORMATS)}.")
    if options.output and not options.output.parent.is_dir():
        raise UserError(f"--output {options.output}: there is no folder {options.output.parent}. Create it first.")
    for file in options.figure:
        load_figures(file)
    path = find_study(options.study, options.root)
    directions = dict.fromkeys(options.lower, False) | dict.fromkeys(options.higher, True)
    summary = summarise(path, options.baseline, options.select, directions)
    if options.format:
        folder = options.output.parent if options.output else path
        text = _text(summary, options.format, folder)
        if options.output:
            files.write_text(options.output, text)
            print(options.output, file=sys.stderr)
        else:
            sys.stdout.write(text)
        return

    from rich.console import Console

    from diffexp.report.terminal import print_summary

    terminal = Console(highlight=False)
    print_summary(summary, terminal if terminal.is_terminal else Console(highlight=False, width=120))
    for name, kind in (("summary.csv", "csv"), ("summary.md", "markdown"), ("report.html", "html")):
        files.write_text(path / name, _text(summary, kind, path))
    print(f"Page: {os.path.relpath(path / 'report.html')}")


def _text(summary: "Summary", kind: str, folder: Path) -> str:
    from diffexp.report import export, markdown, page, terminal

    writers = {
        "table": lambda: terminal.as_text(summary),
        "html": lambda: page.write_page(summary, folder),
        "csv": lambda: export.to_csv(summary),
        "markdown": lambda: markdown.to_markdown(summary),
        "json": lambda: export.to_json(summary),
    }
    text = writers[kind]()
    return text if kind == "html" else printable(text)
