"""Exact optimal denoisers, for data whose density is known.

    eps_hat = E[eps | x_t],    mmse_eps = E ||eps - eps_hat||^2 = E tr Cov[eps | x_t]

Every optimal quantity follows from these two. mmse_eps is a function of log-SNR alone, because x_t / alpha
holds the same information on every schedule; `bayes` turns it into the least loss of any target.

All of it is computed in float64, whatever comes in.
"""

from diffexp.oracle.finite import FiniteData
from diffexp.oracle.normals import Gaussian, Mixture, known_density
from diffexp.oracle.reference import Reference

__all__ = ["FiniteData", "Gaussian", "Mixture", "Reference", "known_density"]
