"""The figures of the page, one function in one file each.

A file in this package is found by its being here; a file of one's own by `diffexp report --figure FILE`.
"""

import importlib
import importlib.util
import pkgutil
from pathlib import Path

from diffexp.errors import UserError
from diffexp.report.figures.base import Figure, Study, Trace, Variant, draw_figures, figure

__all__ = ["Figure", "Study", "Trace", "Variant", "draw_figures", "figure", "load_figures"]

for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")


def load_figures(file: Path) -> None:
    """Run a Python file, which adds its functions under `@figure` to every page that is written afterwards.

    Raises:
        UserError: It is no Python file, or it raises.
    """
    spec = importlib.util.spec_from_file_location(f"diffexp_figures_{file.stem}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise UserError(f"--figure {file}: there is no Python file of that name.")
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except Exception as error:
        raise UserError(f"--figure {file}: {type(error).__name__}: {error}") from error
