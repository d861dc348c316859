"""What a trained network costs in bits: its variational bound and the likelihood of its probability flow."""

import math
import sys

import torch
from omegaconf import DictConfig
from torch import Tensor

from diffexp.cli.load_run import Trained
from diffexp.data.pixels import as_float
from diffexp.denoiser import Denoiser
from diffexp.likelihood.bound import Mmse, measured_mmse, vlb
from diffexp.likelihood.flow import flow_nll
from diffexp.oracle import known_density
from diffexp.targets import V

_SEED = 20_110_707  # of the noise; one for all runs


def bits_per_dim(run: Trained, likelihood: DictConfig) -> dict[str, float]:
    """`bits_per_dim/vlb`, `bits_per_dim/flow`, their standard errors over images, and the bound's parts.

    Of 8-bit values where the data has them, else of a density on the scale [-1, 1]. Where the density is known also
    what the best possible network has on the same images and the same noise, as `.../optimum`. A bound that does not
    exist for the run's target and schedule is left out, with a line that says why.
    """
    count = min(int(likelihood.count), run.parts.data.size("heldout"))
    if not count:
        return {}
    x0 = run.parts.data.heldout(count)
    known = known_density(run.parts.data)
    asked = {"": run.denoiser} | ({"/optimum": known.denoiser(run.parts.schedule, V())} if known else {})
    found: dict[str, float] = {}
    for name, denoiser in asked.items():
        try:
            found |= _bound(run, likelihood, denoiser, x0, name)
        except ValueError as error:
            print(f"diffexp evaluate: note: no bits_per_dim/vlb: {error}", file=sys.stderr)
            break
    flow = flow_nll(
        run.denoiser,
        x0,
        steps=likelihood.flow_steps,
        draws=likelihood.flow_draws,
        dequantize=run.parts.data.quantized,
        generator=_generator(run.device),
    )
    found |= _over_images("bits_per_dim/flow", flow.bits_per_dim)
    found["bits_per_dim/flow/estimator_stderr"] = (flow.stderr.square().mean() / count).sqrt().item() / math.log(2)
    if known and not run.parts.data.quantized:
        end = torch.tensor(run.parts.schedule.time_range[0]).reshape(1, 1, 1, 1)
        density = known.log_density(x0, run.parts.schedule.log_snr(end.double()).item())
        found |= _over_images("bits_per_dim/flow/optimum", -density / x0[0].numel() / math.log(2))
    return found


def _bound(run: Trained, likelihood: DictConfig, denoiser: Denoiser, x0: Tensor, name: str) -> dict[str, float]:
    schedule, t_start = run.parts.schedule, float(run.cfg.sampling.t_start)
    steps = int(likelihood.steps or schedule.steps)
    bound = vlb(
        denoiser,
        x0,
        steps,
        likelihood.variance,
        discretized=run.parts.data.quantized,
        generator=_generator(run.device),
        mmse=_least_error(run, denoiser, len(x0), steps) if likelihood.variance == "optimal" else None,
        t_start=t_start,
    )
    found = _over_images(f"bits_per_dim/vlb{name}", bound.bits_per_dim)
    if not name:
        parts = {"L_T": bound.L_T, "kl": bound.kl.sum(-1), "L_0": bound.L_0}
        found |= {f"bits_per_dim/vlb/{part}": nats.mean().item() / math.log(2) for part, nats in parts.items()}
    return found


def _least_error(run: Trained, denoiser: Denoiser, count: int, steps: int) -> Mmse:
    """The errors that set the optimal variances, measured on training images."""
    x0 = as_float(run.parts.data.reference("train", count))
    return measured_mmse(denoiser, x0, steps, _generator(run.device), float(run.cfg.sampling.t_start))


def _over_images(name: str, values: Tensor) -> dict[str, float]:
    stderr = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {name: values.mean().item(), f"{name}/stderr": stderr}


def _generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(_SEED)
