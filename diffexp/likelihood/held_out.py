"""What a denoiser costs in bits on held-out images: the variational bound, and the likelihood of its flow."""

import math
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from diffexp.data.base import Data
from diffexp.data.pixels import as_float
from diffexp.denoiser import Denoiser
from diffexp.likelihood.bound import Mmse, Variance, measured_mmse, vlb
from diffexp.likelihood.flow import flow_nll
from diffexp.oracle import known_density
from diffexp.targets import V

_SEED = 20_110_707  # of the noise; one for all runs


@dataclass(frozen=True)
class Measurement:
    """How bits/dim are measured.

    Attributes:
        count: Held-out images; 0: not at all.
        steps: Of the bound's chain; None: the schedule's own.
        variance: Of the bound's model.
        flow_steps: Of Runge-Kutta, four evaluations of the network each.
        flow_draws: Probes an image of the flow's divergence.
        t_start: Noise end of the bound's chain.
    """

    count: int = 128
    steps: int | None = None
    variance: Variance = "beta"
    flow_steps: int = 50
    flow_draws: int = 2
    t_start: float = 1.0


def bits_per_dim(denoiser: Denoiser, data: Data, how: Measurement) -> dict[str, float]:
    """`bits_per_dim/vlb`, `bits_per_dim/flow`, their standard errors over images, and the bound's parts.

    Of 8-bit values where the data has them, else of a density on the scale [-1, 1]. Where the density is known also
    what the best possible network has on the same images and the same noise, as `.../optimum`. A bound that does not
    exist for the denoiser's target and schedule is left out, with a line on stderr that says why.
    """
    count, schedule = min(how.count, data.size("heldout")), denoiser.schedule
    if not count:
        return {}
    x0 = data.heldout(count)
    known = known_density(data)
    asked = {"": denoiser} | ({"/optimum": known.denoiser(schedule, V())} if known else {})
    found: dict[str, float] = {}
    for name, each in asked.items():
        try:
            found |= _bound(each, data, how, x0, name)
        except ValueError as error:
            print(f"note: no bits_per_dim/vlb: {error}", file=sys.stderr)
            break
    flow = flow_nll(
        denoiser,
        x0,
        steps=how.flow_steps,
        draws=how.flow_draws,
        dequantize=data.quantized,
        generator=_generator(data.device),
    )
    found |= _over_images("bits_per_dim/flow", flow.bits_per_dim)
    found["bits_per_dim/flow/estimator_stderr"] = (flow.stderr.square().mean() / count).sqrt().item() / math.log(2)
    if known and not data.quantized:
        end = torch.tensor(schedule.time_range[0]).reshape(1, 1, 1, 1)
        density = known.log_density(x0, schedule.log_snr(end.double()).item())
        found |= _over_images("bits_per_dim/flow/optimum", -density / x0[0].numel() / math.log(2))
    return found


def _bound(denoiser: Denoiser, data: Data, how: Measurement, x0: Tensor, name: str) -> dict[str, float]:
    steps = how.steps or denoiser.schedule.steps
    mmse: Mmse | None = None
    if how.variance == "optimal":  # set by the errors on training images
        training = as_float(data.reference("train", len(x0)))
        mmse = measured_mmse(denoiser, training, steps, _generator(data.device), how.t_start)
    bound = vlb(
        denoiser,
        x0,
        steps,
        how.variance,
        discretized=data.quantized,
        generator=_generator(data.device),
        mmse=mmse,
        t_start=how.t_start,
    )
    found = _over_images(f"bits_per_dim/vlb{name}", bound.bits_per_dim)
    if not name:
        parts = {"L_T": bound.L_T, "kl": bound.kl.sum(-1), "L_0": bound.L_0}
        found |= {f"bits_per_dim/vlb/{part}": nats.mean().item() / math.log(2) for part, nats in parts.items()}
    return found


def _over_images(name: str, values: Tensor) -> dict[str, float]:
    stderr = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {name: values.mean().item(), f"{name}/stderr": stderr}


def _generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(_SEED)
