"""Where a target cannot be inverted, and what rounding costs where it can."""

import math

import pytest
import torch
from catalogue import CHAINS, SCHEDULES, TARGETS, every_path, per_image

from diffexp.invertibility import amplification, rounding, singular, spans, trained_times
from diffexp.schedule import Path
from diffexp.targets import X0, Coefficients, Epsilon, PosteriorMean, Target, V
from diffexp.times import Uniform

LINEAR = SCHEDULES["linear_beta"]


class Mix(Target):
    """a x0 + b eps with constants."""

    def __init__(self, a: float, b: float) -> None:
        self.a, self.b = a, b

    def coefficients(self, schedule: object, t: torch.Tensor) -> Coefficients:
        return Coefficients(torch.full_like(t, self.a), torch.full_like(t, self.b), torch.zeros_like(t))


@pytest.mark.parametrize(
    ("target", "dtype", "x0", "eps"),
    [
        (Epsilon(), torch.bfloat16, {1: 2e-5, 500: 0.0057, 1000: 0.26}, {1: 0.0017, 500: 0.0017, 1000: 0.0017}),
        (X0(), torch.bfloat16, {1: 0.0017, 500: 0.0017, 1000: 0.0017}, {1: 0.17, 500: 0.0005, 1000: 1e-5}),
        (PosteriorMean(), torch.bfloat16, {1: 0.0017, 500: 0.54, 1000: 13.0}, {1: 0.17, 500: 0.16, 1000: 0.08}),
        (PosteriorMean(), torch.float16, {1000: 13 / 8}, {500: 0.02}),
    ],
)
def test_rounding_costs_on_ddpms_chain_what_a_reference_calculation_found(
    target: Target, dtype: torch.dtype, x0: dict[int, float], eps: dict[int, float]
) -> None:
    """Two or one digits of it; float16 has three bits more than bfloat16."""
    for name, known in (("x0", x0), ("eps", eps)):
        for step, wanted in known.items():
            found = getattr(rounding(target, LINEAR, per_image([step / 1000]), dtype), name)
            assert found.rms == pytest.approx(wanted, rel=0.2, abs=3e-6)
            assert (found.t, found.log_snr) == (step / 1000, LINEAR.log_snr(per_image([step / 1000])).item())


def test_rounding_is_worst_at_the_largest_amplification_and_notable_from_a_square_root_on() -> None:
    """epsilon's x0 is off by r sigma / alpha, so by more than 0.1 where log-SNR < -2 log(0.1 / r)."""
    schedule = SCHEDULES["rectified"]
    t = trained_times(Uniform(), schedule)
    found = rounding(Epsilon(), schedule, t, torch.bfloat16)
    assert (found.x0.t, found.eps.above) == (0.999, ())
    (span,) = found.x0.above
    assert span.last == 0.999
    assert span.log_snr_first == pytest.approx(-2 * math.log(0.1 / 0.00166), abs=0.05)
    sigma, alpha = schedule.sigma(t), schedule.alpha(t)
    x0, eps = amplification(V(), schedule, t)
    assert torch.equal((x0 / eps) > 1, sigma > alpha)


@every_path
def test_the_sum_of_image_and_noise_cannot_be_inverted_where_they_are_equally_strong(schedule: Path) -> None:
    """D = alpha - sigma changes its sign at log-SNR 0, wherever the grid lies."""
    t = trained_times(Uniform(), schedule)
    (span,) = spans(singular(Mix(1.0, 1.0), schedule, t), schedule, t)
    assert abs(span.log_snr_first) < 0.1
    assert not singular(Mix(1.0, -1.0), schedule, t).any()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_target_that_repeats_x_t_is_singular_everywhere_though_its_gain_is_rounding(name: str) -> None:
    class Repeat(Target):
        def coefficients(self, schedule: object, t: torch.Tensor) -> Coefficients:
            return Coefficients(SCHEDULES[name].alpha(t) / 7, SCHEDULES[name].sigma(t) / 7, torch.zeros_like(t))

    t = trained_times(Uniform(), SCHEDULES[name])
    assert singular(Repeat(), SCHEDULES[name], t).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_built_in_target_is_singular_at_a_time_that_training_uses(name: str) -> None:
    t = trained_times(Uniform(), SCHEDULES[name])
    for word, target in TARGETS.items():
        if not (word == "flow" and name in CHAINS):
            assert not singular(target, SCHEDULES[name], t).any(), word


def test_spans_are_the_runs_of_neighbouring_times() -> None:
    t = per_image([0.1, 0.2, 0.3, 0.4, 0.5])
    found = spans(torch.tensor([True, True, False, False, True]), LINEAR, t)
    assert [(span.first, span.last) for span in found] == [(0.1, 0.2), (0.5, 0.5)]
    assert found[0].log_snr_last == LINEAR.log_snr(t[1:2]).item()
    assert spans(torch.zeros(5, dtype=torch.bool), LINEAR, t) == ()
