"""One unit for all targets: the error of the prediction, on held-out noise that is the same for every run.

A network's errors in x0 and eps are one error e (see `targets`), so its squared error in any unit is e^2 times a
factor of t. Measured on fixed (x0, t, eps), and without the label noise xi, it is comparable across targets, which
training losses are not. The total is uniform in t over the time range; a single total is itself a choice of
weighting, hence the four units and the bands of log-SNR.

Where the data's density is known, so is the best prediction. The *excess* is the squared difference from it: the
prediction error without its irreducible part, and without the scatter of eps.
"""

import itertools

import torch
from torch import Tensor

from diffexp.data.base import Data
from diffexp.denoiser import Denoiser
from diffexp.draws import Draws
from diffexp.likelihood.bound import HeldOutBound, Variance
from diffexp.objective import Objective
from diffexp.oracle import Reference
from diffexp.runs.metric_keys import BAND_EDGES, band_key
from diffexp.schedule import Schedule
from diffexp.targets import V
from diffexp.times import Times, Uniform

_SEED = 20_240_229  # of the validation draws: one for all runs, whatever their own seed


class HeldOut:
    """Fixed held-out (x0, t, eps, xi), a function of data, schedule and time range alone.

    Args:
        data: Where the held-out images come from; repeated, with other t and eps, if there are fewer than `count`.
        objective: The run's own loss, measured beside the errors.
        schedule: Makes x_t.
        times: Gives the time range; validation is uniform in t over it whatever the training density.
        count: Number of (x0, t, eps, xi).
        batch_size: How many the network sees at once.
        known: The data's density, if it is known.
        bound: Model variance of the variational bound measured beside; None: no bound.
        t_start: Noise end of the bound's chain, as the sampler's.

    Attributes:
        zero_loss: The run's loss of the zero-prediction baseline.
        optimum: What the best denoiser measures on the same draws, named as in `measure`; empty unless `known`.
    """

    def __init__(
        self,
        data: Data,
        objective: Objective,
        schedule: Schedule,
        times: Times,
        count: int,
        batch_size: int,
        known: Reference | None = None,
        bound: Variance | None = None,
        t_start: float = 1.0,
    ) -> None:
        self.objective, self.schedule, self.batch_size = objective, schedule, batch_size
        self.x0 = data.heldout(count)
        draws, device = Draws(_SEED), self.x0.device  # drawn on the CPU, so that every device measures the same
        self.eps, self.xi = (draws.normal(self.x0.shape, 0, purpose).to(device) for purpose in ("eps", "xi"))
        u = ((draws.choose(count, count, 0, "strata") + draws.uniform(count, 0, "times")) / count).to(device)
        self.t = Uniform(times.t_min, times.t_max)(schedule, u)
        zero = objective.of_prediction(torch.zeros_like(self.x0), schedule, self.x0, self.t, self.eps, self.xi)
        self.zero_loss = zero.double().mean().item()
        self._bound = HeldOutBound(self.x0, schedule, bound, data.quantized, draws, t_start) if bound else None
        self._best, self.optimum = None, dict[str, float]()
        if known is not None:
            alpha, sigma = schedule.amplitudes(self.t)
            x_t = schedule.noised(self.t, self.x0, self.eps)
            best = known.denoiser(schedule, V())
            optimal = best(x_t.double(), self.t)
            norm = alpha.square() + sigma.square()
            self._best = (alpha * (optimal.eps - self.eps) - sigma * (optimal.x0 - self.x0)) / norm
            self.optimum = self._in_all_units("val/belief", self._best)
            if self._bound:
                self.optimum["val/bits_per_dim"] = self._bound.bits_per_dim(best, batch_size)

    @torch.no_grad()
    def measure(self, denoiser: Denoiser) -> dict[str, float]:
        """`val/loss`, `val/zero_loss`, `val/belief_{eps,x0,v,score}` and each error per band of log-SNR.

        All are means over uniform t; under another density of training times val/loss is therefore not what
        training minimises, and `val/zero_loss` is that loss of the zero-prediction baseline. With a known density also
        `val/excess_{eps,x0,v,score}`, and with a bound `val/bits_per_dim`: of 8-bit values where the data has them,
        else of a density on the scale [-1, 1], which may be negative. There is no bound for a target that does
        not determine x0 at one of the chain's steps.
        """
        x_t = self.schedule.noised(self.t, self.x0, self.eps)
        parts = zip(torch.split(x_t, self.batch_size), torch.split(self.t, self.batch_size), strict=True)
        output = torch.cat([denoiser.predict(x, t) for x, t in parts])
        loss = self.objective.of_prediction(output, self.schedule, self.x0, self.t, self.eps, self.xi)
        a, b, _ = denoiser.target.coefficients(self.schedule, self.t)
        error = (output - a * self.x0 - b * self.eps) / denoiser.target.gain(self.schedule, self.t)  # float64, as t is
        found = {"val/loss": loss.double().mean().item(), "val/zero_loss": self.zero_loss}
        found |= self._in_all_units("val/belief", error)
        if self._best is not None:
            found |= self._in_all_units("val/excess", error - self._best)
        if self._bound and self._bound.exists_for(denoiser.target):
            found["val/bits_per_dim"] = self._bound.bits_per_dim(denoiser, self.batch_size)
        return found

    def _in_all_units(self, name: str, error: Tensor) -> dict[str, float]:
        """The mean square of the one error e in each unit, in total and per band."""
        squared = error.square().mean((1, 2, 3), keepdim=True)
        alpha, sigma = self.schedule.amplitudes(self.t)
        factors = {"eps": alpha, "x0": sigma, "v": alpha.square() + sigma.square(), "score": alpha / sigma}
        log_snr = self.schedule.log_snr(self.t).flatten().cpu()
        found: dict[str, float] = {}
        for unit, factor in factors.items():
            values = (factor.square() * squared).flatten().cpu()
            found[f"{name}_{unit}"] = values.mean().item()
            found |= _per_band(f"{name}_{unit}", values, log_snr)
        return found


def _per_band(name: str, values: Tensor, log_snr: Tensor) -> dict[str, float]:
    bands: dict[str, float] = {}
    for low, high in itertools.pairwise(BAND_EDGES):
        inside = (log_snr >= low) & (log_snr < high)
        if inside.any():
            bands[band_key(name, low, high)] = values[inside].mean().item()
    return bands
