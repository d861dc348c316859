"""Likelihood of images: the variational bound, and that of the probability flow."""

from diffexp.likelihood.bound import expected_vlb, vlb

__all__ = ["expected_vlb", "vlb"]
