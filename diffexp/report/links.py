"""Where things are in the page, and in the run directories beside it."""

import os
from html import escape
from pathlib import Path
from urllib.parse import quote

from diffexp.report.rows import Row
from diffexp.runs.study import Run


def row_anchor(row: Row) -> str:
    """The fragment that leads to a row's runs."""
    return f"row-{quote(row.name, safe='')}"


def run_anchor(run: Run) -> str:
    """The fragment that leads to one run."""
    return f"run-{quote(run.name, safe='')}-{run.seed}"


def link(file: Path, folder: Path) -> str:
    """A relative link; "./" first, so that no name can be taken for a scheme."""
    relative = Path(os.path.relpath(file.absolute(), folder.absolute())).as_posix()
    return escape("./" + quote(relative, safe="/="))
