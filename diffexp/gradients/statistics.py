"""Norm and noise of the training gradient at every noise level, and the agreement between noise levels.

A target can train faster because its gradient is less noisy, because it agrees with that of other noise levels, or
because it is largest at levels that are soon learned. Per band of log-SNR, with g the gradient of the loss of a single
image with respect to all weights,

    norm^2 = ||E g||^2,    variance = tr Cov g,    noise scale = variance / norm^2,                      (1)

the last being the "simple noise scale" of McCandlish et al. 2018 (arXiv:1812.06162, eq. 2.9): the batch size at
which signal and noise are equal in a step's gradient. With n independent batches of B images and g_i the mean
gradient of batch i, these are estimated without bias:

    norm^2    = mean of <g_i, g_j> over i != j = (||sum g_i||^2 - sum ||g_i||^2) / (n (n - 1)),           (2)
    variance  = B (sum ||g_i||^2 - ||sum g_i||^2 / n) / (n - 1),
    <E g_a, E g_b> = <mean g_a, mean g_b>, since bands have independent draws.

So (2) may be negative where the mean gradient is lost in noise; it is not clamped.

Label noise xi enters the gradient linearly and is zero on average, so the gradient at xi = 0 has the same mean:
norms and cosines are measured with it, and the variance that xi adds is measured separately, B E||g - g(xi = 0)||^2.
"""

import contextlib
import itertools
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffexp.denoiser import Denoiser
from diffexp.draws import Draws
from diffexp.errors import UserError
from diffexp.io.progress import progress
from diffexp.objective import Objective
from diffexp.runs.metric_keys import BAND_EDGES
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage
from diffexp.times import Times

Pool: TypeAlias = Float[Tensor, "images channel height width"]

_SEED = 20_240_301  # of the draws: one for all targets, so that comparisons are paired
_BLOCKS = 8  # of batches, left out one by one for the standard errors
_COLUMNS = 2**20  # of gradients in double precision at once


@dataclass(frozen=True)
class GradientStatistics:
    """The gradient of the loss of one image between two log-SNRs. Units: loss per unit of weight.

    Standard errors are from the jackknife over blocks of batches.

    Attributes:
        low: log-SNR from which,
        high: and below which the times lie.
        probability: Share of the training times there.
        norm_squared: Unbiased ||E g||^2, which may be negative where it is lost in noise.
        norm_squared_stderr: Its standard error.
        variance: tr Cov g of a single image, its time drawn from the band.
        variance_stderr: Its standard error.
        label_noise: Share of the variance that comes from label noise xi; 0 for a target without.
        snr: norm_squared / variance, the signal-to-noise ratio of one image.
        snr_stderr: Its standard error.
        share: probability x norm, over the sum of that for all bands.
    """

    low: float
    high: float
    probability: float
    norm_squared: float
    norm_squared_stderr: float
    variance: float
    variance_stderr: float
    label_noise: float
    snr: float
    snr_stderr: float
    share: float

    @property
    def resolved(self) -> bool:
        """Whether the squared norm exceeds two of its standard errors."""
        return self.norm_squared > 2 * self.norm_squared_stderr

    @property
    def norm(self) -> float:
        """||E g||; 0 where the estimate of its square is negative."""
        return math.sqrt(max(self.norm_squared, 0.0))

    @property
    def noise_scale(self) -> float:
        """variance / norm^2, in images; infinite where the norm is lost in noise."""
        return 1 / self.snr if self.snr > 0 else math.inf

    @property
    def least_noise_scale(self) -> float:
        """Two standard errors below the noise scale: a lower bound where the norm is not resolved."""
        bound = self.snr + 2 * self.snr_stderr
        return 1 / bound if bound > 0 else math.inf


@dataclass(frozen=True)
class BandGradients:
    """The gradient per band of log-SNR, and the agreement of the bands.

    Attributes:
        bands: From noise to image; bands in which no training time lies are left out.
        whole: All bands together, weighted as in training. Training spreads the times of a batch evenly over their
            quantiles, so its variance is the mean variance within bands; their counts add none.
        cosine: Between the mean gradients of two bands, corrected for noise (so it may leave [-1, 1] a little);
            nan where a norm is lost in noise, 1 with itself.
        cosine_stderr: Standard errors of these.
        batches: Independent batches per band.
        batch_size: Images in each.
    """

    bands: tuple[GradientStatistics, ...]
    whole: GradientStatistics
    cosine: tuple[tuple[float, ...], ...]
    cosine_stderr: tuple[tuple[float, ...], ...]
    batches: int
    batch_size: int


def gradients_by_band(
    denoiser: Denoiser,
    objective: Objective,
    x0: Pool,
    times: Times,
    *,
    batches: int = 32,
    batch_size: int = 128,
    loss_scale: float = 1.0,
    bands: Sequence[int | float] = BAND_EDGES,
    seed: int = _SEED,
) -> BandGradients:
    """(1) in every band, for the objective as it is trained but without dropout.

    Times are drawn from the training density within the band, images from `x0` with replacement, all from streams of
    (seed, batch, band), on the CPU: the same for every target, network and device. The network's state is restored. The
    device holds 8 sums of gradients per band, whatever the number of batches.

    Args:
        denoiser: The network is differentiated with respect to its trainable parameters, or, if it is a frozen copy
            (an average of weights), to all of them.
        objective: The loss; its target is the denoiser's.
        x0: The images to draw from: training images.
        times: How training times are drawn.
        batches: Independent batches per band, at least 3.
        batch_size: Images in each.
        loss_scale: What training divides the loss by (see `DiffusionModule`), so that norms are those that gradient
            clipping and the optimiser see. Noise scales, shares and cosines do not depend on it.
        bands: Increasing edges of log-SNR.
        seed: Of the draws.

    Raises:
        UserError: Too few batches, or no training time lies in any band.
    """
    if batches < 3 or batch_size < 1:
        raise UserError(
            f"batches={batches} batch_size={batch_size}: separating the mean of a gradient from its noise "
            "takes at least 3 batches, better 32, of at least one image each."
        )
    schedule, reached = denoiser.schedule, _reached(denoiser.schedule, times, bands)
    if not reached:
        raise UserError(f"bands={list(bands)}: no training time of {times!r} has its log-SNR there.")
    blocks, draws = min(_BLOCKS, batches), Draws(seed)
    counts = torch.bincount(torch.arange(batches) % blocks).double()
    squares, noise_squares = torch.zeros(2, len(reached), blocks, dtype=torch.float64)
    with _differentiable(denoiser.network) as weights:
        size = sum(weight.numel() for weight in weights)
        sums = weights[0].new_zeros(len(reached), blocks, size, dtype=_float32_or_better(weights[0].dtype))
        every = list(itertools.product(range(batches), range(len(reached))))
        for batch, band in progress(every, len(every), "gradients"):
            images, t, eps, xi = _draw(draws, batch, reached[band], x0, schedule, times, batch_size)
            noisy = bool((denoiser.target.coefficients(schedule, t).c != 0).any())
            images, t, eps, xi = (part.to(weights[0].device) for part in (images, t, eps, xi))
            prediction = denoiser.predict(schedule.noised(t, images, eps), t)
            drawn = schedule, images, t, eps
            loss = objective.of_prediction(prediction, *drawn, torch.zeros_like(xi)).mean() / loss_scale
            gradient = _flat(loss, weights, retain=noisy)
            sums[band, batch % blocks] += gradient
            squares[band, batch % blocks] += _square(gradient)
            if noisy:
                noisy_loss = objective.of_prediction(prediction, *drawn, xi).mean() / loss_scale
                noise_squares[band, batch % blocks] += _square(_flat(noisy_loss - loss, weights))
    shares = torch.tensor([band.share for band in reached], dtype=torch.float64)
    sums_over_batches = _Measured(_products(sums), squares, noise_squares, counts, shares, batch_size)
    return sums_over_batches.summary(reached, batches)


@dataclass(frozen=True)
class _Band:
    """A band of log-SNR as an interval of quantiles of the training times."""

    low: float
    high: float
    first: float
    last: float

    @property
    def share(self) -> float:
        return self.last - self.first


def _reached(schedule: Schedule, times: Times, edges: Sequence[int | float]) -> list[_Band]:
    """The bands with training times, from noise to image, by bisection: log-SNR falls with the quantile."""
    edge = torch.tensor(edges, dtype=torch.float64)
    first, last = torch.zeros_like(edge), torch.ones_like(edge)
    for _ in range(60):
        middle = (first + last) / 2
        above = schedule.log_snr(times(schedule, middle)).flatten() >= edge
        first, last = torch.where(above, middle, first), torch.where(above, last, middle)
    quantile = _plain(first)
    bands = [
        _Band(float(low), float(high), at_high, at_low)
        for (low, at_low), (high, at_high) in itertools.pairwise(zip(edges, quantile, strict=True))
    ]
    return [band for band in bands if band.share > 1e-12]


def _draw(
    draws: Draws, step: int, band: _Band, x0: Pool, schedule: Schedule, times: Times, count: int
) -> tuple[Images, PerImage, Images, Images]:
    """(x0, t, eps, xi) of `count` images, the same for every target."""
    where = f"{band.low:g}_{band.high:g}"
    pick = (draws.uniform(count, step, f"images/{where}") * len(x0)).long()
    t = times(schedule, band.first + band.share * draws.uniform(count, step, f"times/{where}"))
    shape = (count, *x0.shape[1:])
    eps, xi = (draws.normal(shape, step, f"{purpose}/{where}", x0.dtype) for purpose in ("eps", "xi"))
    return x0[pick.to(x0.device)], t, eps, xi


@contextlib.contextmanager
def _differentiable(network: nn.Module) -> Generator[list[nn.Parameter]]:
    """The weights to differentiate by, with the network in evaluation mode; its state is restored afterwards."""
    every = list(network.parameters())
    weights = [weight for weight in every if weight.requires_grad] or every
    flags, modes = [weight.requires_grad for weight in weights], {part: part.training for part in network.modules()}
    try:
        network.eval()
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            yield weights
    finally:
        for weight, flag in zip(weights, flags, strict=True):
            weight.requires_grad_(flag)
        for part, mode in modes.items():
            part.training = mode


def _flat(loss: Tensor, weights: Sequence[nn.Parameter], retain: bool = False) -> Tensor:
    """The gradient as one vector; `.grad` is not changed."""
    parts = torch.autograd.grad(loss, weights, retain_graph=retain, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten().to(_float32_or_better(part.dtype)) for part in parts])


def _plain(numbers: Tensor) -> list[Any]:
    return cast(Any, numbers).tolist()


def _float32_or_better(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _square(gradient: Tensor) -> float:
    return gradient.double().square().sum().item()


def _products(sums: Tensor) -> Tensor:
    """<sums[a, k], sums[b, l]> as (a, k, b, l), float64 on the CPU."""
    parts = (part.double() for part in torch.split(sums.flatten(0, 1), _COLUMNS, dim=1))
    return torch.stack([(part @ part.T).cpu() for part in parts]).sum(0).reshape(*sums.shape[:2], *sums.shape[:2])


@dataclass(frozen=True)
class _Measured:
    """Sums over batches, block by block.

    Attributes:
        products: Of the blocks' sums of gradients at xi = 0 (bands, blocks, bands, blocks).
        squares: Sum of ||gradient at xi = 0||^2 (bands, blocks).
        noise_squares: Sum of ||gradient - gradient at xi = 0||^2 (bands, blocks).
        counts: Batches (blocks,).
        probability: Of each band.
        batch_size: Images per batch.
    """

    products: Tensor
    squares: Tensor
    noise_squares: Tensor
    counts: Tensor
    probability: Tensor
    batch_size: int

    def estimates(self, keep: Tensor) -> dict[str, Tensor]:
        """All estimates from the blocks in `keep`; per band with the whole last, `cosine` (bands, bands)."""
        n, p = self.counts[keep].sum(), self.probability / self.probability.sum()
        total = self.products[:, keep][:, :, :, keep].sum((1, 3))
        squares, mean_squares = self.squares[:, keep].sum(1), total.diagonal() / n
        inner = total / n**2
        inner = inner - inner.diagonal().diag() + ((total.diagonal() - squares) / (n * (n - 1))).diag()
        label = self.batch_size * self.noise_squares[:, keep].sum(1) / n
        variance = self.batch_size * (squares - mean_squares) / (n - 1) + label
        norms = inner.diagonal()
        pull = self.probability * norms.clamp(min=0).sqrt()
        together = {
            "norm_squared": (norms, p @ inner @ p),
            "variance": (variance, p @ variance),
            "label": (label, p @ label),
            "share": (pull / pull.sum(), torch.ones((), dtype=pull.dtype)),
        }
        found = {name: torch.cat([bands, whole.reshape(1)]) for name, (bands, whole) in together.items()}
        found["snr"] = found["norm_squared"] / found["variance"]
        found["label_noise"] = (found.pop("label") / found["variance"]).nan_to_num(0.0)
        cosine = inner / (norms[:, None].sqrt() * norms.sqrt())
        found["cosine"] = torch.where(torch.eye(len(p), dtype=torch.bool), torch.ones_like(cosine), cosine)
        return found

    def summary(self, bands: Sequence[_Band], batches: int) -> BandGradients:
        """The estimates with their jackknife standard errors, as plain numbers."""
        blocks = torch.arange(len(self.counts))
        value = self.estimates(blocks >= 0)
        without = [self.estimates(blocks != block) for block in blocks]
        stderr = {
            name: torch.stack([left[name] for left in without]).var(0, unbiased=False).mul(len(blocks) - 1).sqrt()
            for name in value
        }
        numbers = {name: _plain(part) for name, part in value.items()}
        numbers |= {f"{name}_stderr": _plain(part) for name, part in stderr.items()}
        fields = ("norm_squared", "norm_squared_stderr", "variance", "variance_stderr", "label_noise", "snr",
                  "snr_stderr", "share")  # fmt: skip
        spans = [(band.low, band.high, band.share) for band in bands]
        spans.append((bands[0].low, bands[-1].high, sum(band.share for band in bands)))
        every = [
            GradientStatistics(*span, **{name: numbers[name][i] for name in fields}) for i, span in enumerate(spans)
        ]
        cosine, cosine_stderr = (
            tuple(tuple(row) for row in cast(list[list[float]], numbers[name])) for name in ("cosine", "cosine_stderr")
        )
        return BandGradients(tuple(every[:-1]), every[-1], cosine, cosine_stderr, batches, self.batch_size)
