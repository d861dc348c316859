"""From noise to images, through one Estimate, whatever the network predicts.

A sampler walks down a grid of times t > s. All it needs of a network is its prediction (x0, eps, score) at a time; the
levels and rates of the schedule are computed in float64.
"""

from diffexp.samplers.ancestral import Ancestral
from diffexp.samplers.ddim import Ddim
from diffexp.samplers.dpm_solver import DpmSolverPP2M
from diffexp.samplers.grids import Stride
from diffexp.samplers.heun import Heun
from diffexp.samplers.probability_flow import ProbabilityFlow
from diffexp.samplers.reverse_sde import ReverseSde
from diffexp.samplers.sampler import DenoiserLike, Sampler

__all__ = [
    "Ancestral",
    "Ddim",
    "DenoiserLike",
    "DpmSolverPP2M",
    "Heun",
    "ProbabilityFlow",
    "ReverseSde",
    "Sampler",
    "Stride",
]
