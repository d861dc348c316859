"""Data sets of known density in tests/reference/bayes.json, and their eps-error by log-SNR."""

import functools

import torch
from catalogue import reference
from torch import Tensor

from diffexp.data.glyphs import Digits8
from diffexp.oracle import Mixture

KNOWN = reference("bayes")
LOG_SNR = torch.tensor(KNOWN["log_snr"], dtype=torch.float64)


def named(name: str) -> Mixture:
    """Data of the reference file; its images are one row of pixels, but for digits8."""
    if name == "digits8":
        data = Digits8().load()
        return Mixture(data.weights, data.means, data.covariances)
    parts = (torch.tensor(KNOWN["data"][name][key]) for key in ("weights", "means", "covariances"))
    weights, means, covariances = parts
    return Mixture(weights, means[:, None, None], covariances)


@functools.cache
def curve(name: str) -> tuple[Tensor, Tensor]:
    """(mmse_eps, its standard error) at `LOG_SNR`."""
    return named(name).bayes_eps(LOG_SNR)
