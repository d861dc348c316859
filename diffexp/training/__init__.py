"""One run, from objects to its directory; no Hydra here. `fit` is the door for Python."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffexp.training.fitting import fit
    from diffexp.training.loading import load
    from diffexp.training.settings import Compute, Sampling, Training, Validation
    from diffexp.training.setup import Setup

__all__ = ["Compute", "Sampling", "Setup", "Training", "Validation", "fit", "load"]


def __getattr__(name: str) -> Any:
    """Imported on first use: torch takes seconds, and the command line's help needs none."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = {"fit": "fitting", "load": "loading", "Setup": "setup"}.get(name, "settings")
    return getattr(import_module(f"diffexp.training.{module}"), name)
