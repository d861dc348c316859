"""From noise to images, through one Estimate, whatever the network predicts.

A sampler walks down a grid of times t > s. Everything it needs of a network is the belief (x0, eps, score) at a
time; the levels and rates of the schedule are taken in float64.
"""

from diffexp.samplers.ancestral import Ancestral
from diffexp.samplers.beliefs import Believes
from diffexp.samplers.ddim import Ddim
from diffexp.samplers.dpm_solver import DpmSolverPP2M
from diffexp.samplers.heun import Heun
from diffexp.samplers.probability_flow import ProbabilityFlow
from diffexp.samplers.reverse_sde import ReverseSde
from diffexp.samplers.sampler import Sampler
from diffexp.samplers.strides import Stride

__all__ = [
    "Ancestral",
    "Believes",
    "Ddim",
    "DpmSolverPP2M",
    "Heun",
    "ProbabilityFlow",
    "ReverseSde",
    "Sampler",
    "Stride",
]
