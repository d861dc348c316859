"""The smallest possible loss, for any target.

A predictor of y has the error D e where its error in eps is alpha e (see `targets`), so its expected loss is

    E ||y_hat - y||^2 = (D / alpha)^2 E ||eps_hat - eps||^2 + c^2 D_x                                        (1)

with D_x the number of dimensions. Predictors differ in their eps-error alone: that of the optimum is
mmse_eps (`oracle`), that of the best multiple of x_t is mmse_eps of white noise with the data's power. Losses here are
expectations, summed over dimensions, for the plain squared error of a target.
"""

from torch import Tensor

from diffexp.schedule import Schedule
from diffexp.shapes import PerImage
from diffexp.targets import Target


def bayes_loss(target: Target, schedule: Schedule, t: PerImage, mmse_eps: PerImage, dimension: int) -> PerImage:
    """The smallest loss that any network can reach: equation (1) for eps_hat = E[eps | x_t].

    Args:
        target: What is predicted.
        schedule: Makes x_t.
        t: Times at which x_t depends on x0 (alpha > 0).
        mmse_eps: E ||eps - E[eps | x_t]||^2 at t, for example `reference.bayes_eps(schedule.log_snr(t))[0]`; its
            standard error instead gives that of the loss, plus the label noise c^2 D_x.
        dimension: D_x, pixels times channels.
    """
    time = schedule.exact(t)
    rate = target.gain(schedule, time) / schedule.alpha(time)
    return rate.square() * mmse_eps + target.coefficients(schedule, time).c.square() * dimension


def linear_loss(
    target: Target, schedule: Schedule, t: PerImage, second_moment: float | Tensor, dimension: int
) -> PerImage:
    """The loss of the best multiple of x_t, which uses the second moment of the data alone.

    Args:
        target: What is predicted.
        schedule: Makes x_t.
        t: Times with alpha > 0.
        second_moment: E ||x0||^2, summed over dimensions.
        dimension: D_x.
    """
    time = schedule.exact(t)
    signal, noise = (schedule.alpha(time).square() * second_moment, schedule.sigma(time).square() * dimension)
    return bayes_loss(target, schedule, t, dimension * signal / (signal + noise), dimension)


def zero_loss(
    target: Target, schedule: Schedule, t: PerImage, second_moment: float | Tensor, dimension: int
) -> PerImage:
    """The loss of the zero-prediction baseline: E ||y||^2. Arguments as `linear_loss`, any t."""
    a, b, c = target.coefficients(schedule, schedule.exact(t))
    return a.square() * second_moment + (b.square() + c.square()) * dimension


def explained_noise(mmse_eps: Tensor, dimension: int) -> Tensor:
    """R^2 of eps: the fraction of the noise that can be predicted from x_t, in [0, 1]."""
    return 1 - mmse_eps / dimension
