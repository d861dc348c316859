"""The strides of a grid: from one time t down to the next time s."""

from dataclasses import dataclass

from torch import Tensor

from diffexp.schedule import Schedule


@dataclass(frozen=True)
class Stride:
    """The levels at both ends of one step from t down to s.

    `ratio` = alpha_t / alpha_s and `beta` = sigma_t^2 - ratio^2 sigma_s^2, the variance that q adds from s
    to t.
    """

    t: float
    s: float
    alpha_t: float
    alpha_s: float
    sigma_t: float
    sigma_s: float
    log_snr_t: float
    log_snr_s: float
    ratio: float
    beta: float

    @property
    def beta_tilde(self) -> float:
        """Variance of q(x_s | x_t, x0)."""
        return self.beta * (self.sigma_s / self.sigma_t) ** 2


def strides(schedule: Schedule, times: Tensor) -> list[Stride]:
    """The strides between decreasing times, float64 (steps + 1,)."""
    t = times.reshape(-1, 1, 1, 1)
    levels = (schedule.alpha, schedule.sigma, schedule.log_snr)
    alpha, sigma, log_snr = (level(t).flatten() for level in levels)
    beta = -sigma[:-1].square() * (log_snr[:-1] - log_snr[1:]).expm1()
    ends = (part[side] for part in (times, alpha, sigma, log_snr) for side in (slice(-1), slice(1, None)))
    columns = (*ends, alpha[:-1] / alpha[1:], beta)
    return [Stride(*row) for row in zip(*(map(float, column) for column in columns), strict=True)]
