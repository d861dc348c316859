"""Which thing should a diffusion network be asked to predict? One U-Net, one schedule, many targets."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffexp.training.fit import fit
    from diffexp.training.load import load

__version__ = "0.1.0"
__all__ = ["__version__", "fit", "load"]


def __getattr__(name: str) -> Any:
    """`diffexp.fit` and `diffexp.load`, imported on first use: torch takes seconds, and `diffexp --help` needs none."""
    if name == "fit":
        from diffexp.training.fit import fit

        return fit
    if name == "load":
        from diffexp.training.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
