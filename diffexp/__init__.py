"""Which quantity should a diffusion network predict? One U-Net, one schedule, many targets."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffexp.training import fit, load

__version__ = "0.1.0"
__all__ = ["__version__", "fit", "load"]


def __getattr__(name: str) -> Any:
    """`diffexp.fit` and `diffexp.load`, imported on first use: torch takes seconds, and `diffexp --help` needs none."""
    if name not in ("fit", "load"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("diffexp.training"), name)
