"""How good a prediction could possibly be on a data set, found out before anything is trained.

Four answers are compared by what they cost in a target's loss: always zero; the best multiple of x_t, which knows the
power of the data alone; the best linear denoiser, which knows their mean and covariance; and the optimum E[y | x_t].
All but the first are told by one curve, their error in eps over log-SNR, and (1) of `bayes` makes of it the loss of any
target. The optimum's curve is computed at some nodes. Between them its logit is interpolated, because for white data
of variance s per dimension

    logit(mmse_eps / D_x) = log-SNR + log s                                                                  (1)

is a straight line, and for other data it bends slowly.
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
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage
from diffexp.targets import Epsilon
from diffexp.times import Times

HIGH_NOISE, LOW_NOISE = -4.0, 4.0
"""Log-SNR below which noise is called high, and above which it is called low."""

_LINEAR = 4096  # dimensions up to which a covariance is taken apart
_QUANTILES = 100_000  # of the training times
_POINTS = 121  # of a curve that is drawn
_BLOCK = 1024  # images of one step of a covariance
_LEAST = 1e-30  # of an error whose logit is taken

T = TypeVar("T", float, list[float], Tensor)


@dataclass(frozen=True)
class Losses(Generic[T]):
    """Of one target, per dimension.

    Attributes:
        zero: Of answering zero.
        multiple: Of the best multiple of x_t at each time.
        linear: Of the best linear denoiser; None where it was not computed.
        optimum: The least that any network can reach.
        stderr: Standard error of `optimum`; 0 where that is exact. For a mean over times it is an upper bound.
        label_noise: The part of each of them that is fresh noise in the target.
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
        weight: What the loss pays for an error in eps, by log-SNR.
        shares: How much of that weight lies at high, middle and low noise.
    """

    mean: Losses[float]
    curve: Losses[list[float]]
    weight: EffectiveWeight
    shares: tuple[float, float, float]


@dataclass(frozen=True)
class Explanation:
    """What can be known of the noise in x_t, and what that makes of each target's loss.

    Attributes:
        data: Name of the data set, its own.
        images: How many images the optimum is of, for a network that knew them by heart; None where it is the
            population's own.
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
        time_shares: How much of the training times lies at high, middle and low noise.
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
    """What could be learned of each target.

    Data of known density give the population's optimum. Any other data give that of its training images, a floor of
    what training on them can reach; mirrored copies are not counted. Says how far it is on stderr where it takes long.

    Args:
        objectives: Each target's loss, by name.
        data: On the device that is to do the work.
        schedule: Makes x_t.
        times: How training times are drawn.
        nodes: Number of log-SNRs at which the optimum is computed.

    Raises:
        ValueError: A target means nothing on this schedule.
    """
    drawn = times(schedule, (torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES)
    t, counts = cast(tuple[Tensor, Tensor], cast(Any, drawn.flatten()).unique(return_counts=True))
    t, density = t.reshape(-1, 1, 1, 1), (counts.double() / _QUANTILES).reshape(-1, 1, 1, 1)
    log_snr = schedule.log_snr(t)

    known = known_density(data)
    images = None if known else _training_images(data)
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
            shares=_shares(weight),
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
        time_shares=_shares_of(log_snr.flatten(), density.flatten()),
        targets=by_name,
    )


class _EpsErrors:
    """Errors in eps per dimension as functions of log-SNR, exact at the nodes but for `stderr`."""

    def __init__(self, reference: Mixture | FiniteData, variances: Tensor | None, nodes: Tensor) -> None:
        dimension = math.prod(reference.shape)
        steps = progress(nodes, len(nodes), "the least possible error, by noise level")
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


def _training_images(data: Data) -> Images:
    images = data.reference("train")
    return as_float(images)


def _mixture_moments(known: Mixture) -> tuple[float, Tensor | None]:
    """(mean square of a dimension, variances along the principal axes)."""
    mean, weights = known.weights @ known.means, known.weights
    away = known.means - mean
    spread = torch.einsum("k,kde,ke,kfe->df", weights, known.axes, known.variances, known.axes)
    covariance = spread + torch.einsum("k,kd,ke->de", weights, away, away)
    return _moments(mean, covariance)


def _image_moments(images: Images) -> tuple[float, Tensor | None]:
    flat = images.flatten(1)
    count, dimension = flat.shape
    mean = torch.stack([part.double().sum(0) for part in torch.split(flat, _BLOCK)]).sum(0) / count
    if dimension > _LINEAR:
        squares = torch.stack([(part.double() - mean).square().sum(0) for part in torch.split(flat, _BLOCK)])
        return ((squares.sum(0) / count + mean.square()).mean().item(), None)
    covariance = torch.zeros(dimension, dimension, dtype=torch.float64, device=flat.device)
    for away in _blocks(flat, mean):
        covariance += away.T @ away
    return _moments(mean, covariance / count)


def _blocks(flat: Tensor, mean: Tensor) -> Iterator[Tensor]:
    parts = torch.split(flat, _BLOCK)
    return (part.double() - mean for part in progress(parts, len(parts), "the covariance of the images"))


def _moments(mean: Tensor, covariance: Tensor) -> tuple[float, Tensor]:
    power = (covariance.diagonal() + mean.square()).mean().item()
    # numpy's, on the CPU: the numbers should not depend on the device.
    return power, torch.as_tensor(np.linalg.eigvalsh(covariance.cpu().numpy())).clamp(min=0)


def _spread_out(log_snr: Tensor) -> Tensor:
    """Where log-SNR, which decreases, comes nearest to equally spaced values, in the order of these."""
    rising = log_snr.flip(0)
    wanted = torch.linspace(rising[0].item(), rising[-1].item(), _POINTS, dtype=torch.float64)
    above = torch.searchsorted(rising, wanted).clamp(1, len(rising) - 1)
    nearer = (wanted - rising[above - 1] < rising[above] - wanted).long()
    return len(rising) - 1 - cast(Tensor, cast(Any, above - nearer).unique())


def _shares(weight: EffectiveWeight) -> tuple[float, float, float]:
    spent = torch.tensor(weight.weight, dtype=torch.float64) * torch.tensor(weight.times, dtype=torch.float64)
    return _shares_of(torch.tensor(weight.log_snr, dtype=torch.float64), spent / spent.sum())


def _shares_of(log_snr: Tensor, part: Tensor) -> tuple[float, float, float]:
    """The parts at high, middle and low noise."""
    high, low = log_snr < HIGH_NOISE, log_snr > LOW_NOISE
    return part[high].sum().item(), part[~(high | low)].sum().item(), part[low].sum().item()


def _each(losses: Losses[Tensor], made: Callable[[Tensor], T]) -> Losses[T]:
    parts = {name: None if loss is None else made(loss) for name, loss in vars(losses).items()}
    return Losses(**cast(Any, parts))


def _list(values: Tensor) -> list[float]:
    return cast(Any, values.flatten()).tolist()
