"""One run, from objects to its directory; no Hydra here. `fit` is the door for Python."""

from diffexp.training.fit import fit
from diffexp.training.settings import Compute, Sampling, Training, Validation
from diffexp.training.setup import Setup

__all__ = ["Compute", "Sampling", "Setup", "Training", "Validation", "fit"]
