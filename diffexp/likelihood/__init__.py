"""What a model costs in bits: the variational bound, and the likelihood of its probability flow."""

from diffexp.likelihood.bound import expected_vlb, vlb

__all__ = ["expected_vlb", "vlb"]
