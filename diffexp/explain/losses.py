"""How well a target can be predicted on a data set, before anything is trained.

Four predictions are compared by their loss: zero; the best multiple of x_t, which uses the second moment of the data
alone; the best linear denoiser, which uses their mean and covariance; and the optimum E[y | x_t]. All but the first are
described by their error in eps over log-SNR, which (1) of `bayes` converts to the loss of any target. The optimum's
curve is computed at some nodes. Between them its logit is interpolated, because for white data of variance s per
dimension

    logit(mmse_eps / D_x) = log-SNR + log s                                                                  (1)

is a straight line, and for other data its slope changes slowly.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor

from diffexp.data.base import Data
from diffexp.data.pixels import as_float
from diffexp.io.progress import progress
from diffexp.objective import EffectiveWeight, Objective, effective_weight
from diffexp.oracle import FiniteData, Mixture, known_density
from diffexp.oracle.bayes import bayes_loss, explained_noise, linear_loss, zero_loss
from diffexp.runs.metric_keys import NOISE_REGIONS
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage
from diffexp.targets import Epsilon
from diffexp.times import Times

_LINEAR = 4096  # dimensions up to which a covariance is diagonalised
_QUANTILES = 100_000  # of the training times
_POINTS = 121  # of a curve that is drawn
_BLOCK = 1024  # images per block of a covariance
_LEAST = 1e-30  # error whose logit is taken

T = TypeVar("T", float, list[float], Tensor)


@dataclass(frozen=True)
class Losses(Generic[T]):
    """The losses of one target, per dimension.

    Attributes:
        zero: Of the zero-prediction baseline.
        multiple: Of the best multiple of x_t at each time.
        linear: Of the best linear denoiser; None where it was not computed.
        optimum: The smallest that any network can reach.
        stderr: Standard error of `optimum`; 0 where that is exact. For a mean over times it is an upper bound.
        label_noise: The part of each of them that is irreducible label noise.
    """

    zero: T
    multiple: T
    linear: T | None
    optimum: T
    stderr: T
    label_noise: T


@dataclass(frozen=True)
class Explained:
    """One target.

    Attributes:
        mean: Expected training losses.
        curve: The same at each log-SNR of the explanation.
        weight: Of the loss on the eps-error, by log-SNR.
        shares: Of that weight, in each of `NOISE_REGIONS`.
    """

    mean: Losses[float]
    curve: Losses[list[float]]
    weight: EffectiveWeight
    shares: tuple[float, float, float]


@dataclass(frozen=True)
class Explanation:
    """How much of the noise x_t determines, and the losses of each target that follow.

    Attributes:
        data: Name of the data set.
        images: Number of images whose optimum it is, that of a network that has memorised them; None where it is the
            population's.
        dimension: D_x.
        power: Mean square of a dimension of x0.
        time_range: Earliest and latest training time.
        nodes: Number of log-SNRs at which the optimum was computed.
        log_snr: Of the curves, increasing.
        times: The times that belong to them.
        r2: Share of eps that the optimum explains.
        r2_stderr: Its standard error.
        r2_multiple: The share that the best multiple of x_t explains.
        r2_linear: The share that the best linear denoiser explains; None where it was not computed.
        time_shares: Of the training times, in each of `NOISE_REGIONS`.
        targets: What follows for each target.
    """

    data: str
    images: int | None
    dimension: int
    power: float
    time_range: tuple[float, float]
    nodes: int
    log_snr: list[float]
    times: list[float]
    r2: list[float]
    r2_stderr: list[float]
    r2_multiple: list[float]
    r2_linear: list[float] | None
    time_shares: tuple[float, float, float]
    targets: dict[str, Explained]


def explain(
    objectives: Mapping[str, Objective], data: Data, schedule: Schedule, times: Times, nodes: int = 24
) -> Explanation:
    """The losses of each target.

    For data of known density the optimum is the population's. For other data it is that of the training images, without
    mirrored copies: a floor of the training loss. Prints its progress to stderr where it takes long.

    Args:
        objectives: Each target's loss, by name.
        data: On the device where the optimum is computed.
        schedule: Makes x_t.
        times: How training times are drawn.
        nodes: Number of log-SNRs at which the optimum is computed.

    Raises:
        ValueError: A target does not exist on this schedule.
    """
    drawn = times(schedule, (torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES)
    t, counts = cast(tuple[Tensor, Tensor], cast(Any, drawn.flatten()).unique(return_counts=True))
    t, density = t.reshape(-1, 1, 1, 1), (counts.double() / _QUANTILES).reshape(-1, 1, 1, 1)
    log_snr = schedule.log_snr(t)

    known = known_density(data)
    images = None if known else as_float(data.reference("train"))
    power, variances = _mixture_moments(known) if known else _image_moments(cast(Images, images))
    dimension = math.prod(data.image_shape)
    errors = _EpsErrors(
        known or FiniteData(cast(Images, images)),
        variances,
        torch.linspace(log_snr.min().item(), log_snr.max().item(), nodes, dtype=torch.float64),
    )

    chosen = _spread_out(log_snr.flatten())
    shown, at = t[chosen], log_snr[chosen]

    def losses(objective: Objective, t: PerImage, log_snr: PerImage) -> Losses[Tensor]:
        target, scale = objective.target, objective.scale(schedule, t)

        def loss(error: Tensor) -> Tensor:
            return scale * bayes_loss(target, schedule, t, error, 1)

        label_noise = loss(torch.zeros_like(t))
        return Losses(
            zero=scale * zero_loss(target, schedule, t, power, 1),
            multiple=scale * linear_loss(target, schedule, t, power, 1),
            linear=None if errors.linear is None else loss(errors.linear(log_snr)),
            optimum=loss(errors.optimum(log_snr)),
            stderr=loss(errors.stderr(log_snr)) - label_noise,
            label_noise=label_noise,
        )

    def explained(objective: Objective) -> Explained:
        weight = effective_weight(objective, schedule, times)
        return Explained(
            mean=_each(losses(objective, t, log_snr), lambda loss: (density * loss).sum().item()),
            curve=_each(losses(objective, shown, at), _list),
            weight=weight,
            shares=_by_region(lambda low, high: weight.shares(low, high)[0]),
        )

    multiple = linear_loss(Epsilon(), schedule, shown, power, 1)
    by_name = {name: explained(objective) for name, objective in objectives.items()}
    return Explanation(
        data=data.name,
        images=None if images is None else len(images),
        dimension=dimension,
        power=power,
        time_range=times.range(schedule),
        nodes=nodes,
        log_snr=_list(at),
        times=_list(shown),
        r2=_list(explained_noise(errors.optimum(at), 1)),
        r2_stderr=_list(errors.stderr(at)),
        r2_multiple=_list(explained_noise(multiple, 1)),
        r2_linear=None if errors.linear is None else _list(explained_noise(errors.linear(at), 1)),
        time_shares=_by_region(lambda low, high: density[(log_snr >= low) & (log_snr < high)].sum().item()),
        targets=by_name,
    )


class _EpsErrors:
    """Errors in eps per dimension as functions of log-SNR, exact at the nodes but for `stderr`."""

    def __init__(self, reference: Mixture | FiniteData, variances: Tensor | None, nodes: Tensor) -> None:
        dimension = math.prod(reference.shape)
        steps = progress(nodes, len(nodes), "optimal error by noise level")
        values, stderrs = torch.stack([torch.stack(reference.bayes_eps(node)) for node in steps], dim=1) / dimension
        self.optimum = _Curve(nodes, values)
        self._nodes, self._stderrs = nodes, stderrs
        self.linear = None
        if variances is not None:
            self.linear = _Curve(nodes, torch.sigmoid(nodes[:, None] + variances.log()).mean(1))  # (1), axis by axis

    def stderr(self, log_snr: Tensor) -> Tensor:
        return torch.as_tensor(np.interp(log_snr.numpy(), self._nodes.numpy(), self._stderrs.numpy()))


class _Curve:
    """An error in (0, 1) between nodes, monotone wherever the nodes are."""

    def __init__(self, nodes: Tensor, values: Tensor) -> None:
        logits = torch.logit(values.cpu().clamp(_LEAST, 1 - 1e-15))
        self._logit = PchipInterpolator(nodes.numpy(), logits.numpy())

    def __call__(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(torch.as_tensor(self._logit(log_snr.numpy()), dtype=torch.float64))


def _mixture_moments(known: Mixture) -> tuple[float, Tensor | None]:
    """(mean square of a dimension, variances along the principal axes)."""
    mean, weights = known.weights @ known.means, known.weights
    offset = known.means - mean
    spread = torch.einsum("k,kde,ke,kfe->df", weights, known.axes, known.variances, known.axes)
    covariance = spread + torch.einsum("k,kd,ke->de", weights, offset, offset)
    return _moments(mean, covariance)


def _image_moments(images: Images) -> tuple[float, Tensor | None]:
    flat = images.flatten(1)
    count, dimension = flat.shape
    mean = torch.stack([part.double().sum(0) for part in torch.split(flat, _BLOCK)]).sum(0) / count
    if dimension > _LINEAR:
        squares = torch.stack([(part.double() - mean).square().sum(0) for part in torch.split(flat, _BLOCK)])
        return ((squares.sum(0) / count + mean.square()).mean().item(), None)
    covariance = torch.zeros(dimension, dimension, dtype=torch.float64, device=flat.device)
    for centred in _blocks(flat, mean):
        covariance += centred.T @ centred
    return _moments(mean, covariance / count)


def _blocks(flat: Tensor, mean: Tensor) -> Iterator[Tensor]:
    parts = torch.split(flat, _BLOCK)
    return (part.double() - mean for part in progress(parts, len(parts), "covariance of the images"))


def _moments(mean: Tensor, covariance: Tensor) -> tuple[float, Tensor]:
    power = (covariance.diagonal() + mean.square()).mean().item()
    # numpy's, on the CPU: the numbers should not depend on the device.
    return power, torch.as_tensor(np.linalg.eigvalsh(covariance.cpu().numpy())).clamp(min=0)


def _spread_out(log_snr: Tensor) -> Tensor:
    """Indices at which log-SNR, decreasing, is nearest to equally spaced increasing values."""
    rising = log_snr.flip(0)
    wanted = torch.linspace(rising[0].item(), rising[-1].item(), _POINTS, dtype=torch.float64)
    above = torch.searchsorted(rising, wanted).clamp(1, len(rising) - 1)
    nearer = (wanted - rising[above - 1] < rising[above] - wanted).long()
    return len(rising) - 1 - cast(Tensor, cast(Any, above - nearer).unique())


def _by_region(share: Callable[[float, float], float]) -> tuple[float, float, float]:
    high, middle, low = (share(*edges) for edges in NOISE_REGIONS.values())
    return high, middle, low


def _each(losses: Losses[Tensor], made: Callable[[Tensor], T]) -> Losses[T]:
    parts = {name: None if loss is None else made(loss) for name, loss in vars(losses).items()}
    return Losses(**cast(Any, parts))


def _list(values: Tensor) -> list[float]:
    return cast(Any, values.flatten()).tolist()
