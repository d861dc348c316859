"""Training times have the density that their names promise, inside the range that is recorded."""

import math

import numpy as np
import pytest
import torch
from catalogue import CHAINS, PATHS, SCHEDULES, every_chain, every_path, every_schedule
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit
from scipy.stats import norm
from torch.testing import assert_close

from diffexp.schedule import LinearBeta, Rectified, Schedule
from diffexp.times import LogitNormal, LogNormal, Times, Uniform

DENSITIES = [Uniform, LogitNormal, LogNormal]
every_density = pytest.mark.parametrize("density", DENSITIES)
U = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000


def share_below(cdf_argument: np.ndarray, ends: np.ndarray, mean: float, std: float) -> torch.Tensor:
    """The share of N(mean, std^2) between `ends` that lies below the argument."""
    low, high = norm.cdf(ends, mean, std)
    return torch.as_tensor((norm.cdf(cdf_argument, mean, std) - low) / (high - low))


@every_path
def test_uniform_times_are_uniform(schedule: Schedule) -> None:
    assert_close(Uniform()(schedule, U).flatten(), 1e-3 + 0.998 * U, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("mean", [0.0, -0.8])
def test_logit_normal_times_are_normal_in_their_logit(name: str, mean: float) -> None:
    """Esser et al. 2024, eq. 19, restricted to the range."""
    t = LogitNormal(0.05, 0.9, mean=mean, std=1.3)(SCHEDULES[name], U).flatten().numpy()
    assert_close(share_below(logit(t), logit([0.05, 0.9]), mean, 1.3), U, rtol=1e-9, atol=1e-12)


@every_path
def test_log_normal_times_are_normal_in_their_log_noise(schedule: Schedule) -> None:
    """Karras et al. 2022, table 1: ln sigma ~ N(-1.2, 1.2^2), sigma being the noise on an unscaled image."""
    t = LogNormal()(schedule, U)
    ends = torch.tensor([1e-3, 1 - 1e-3], dtype=torch.float64).reshape(-1, 1, 1, 1)
    noise, between = ((schedule.sigma(x) / schedule.alpha(x)).log().flatten().numpy() for x in (t, ends))
    assert_close(share_below(noise, between, -1.2, 1.2), U, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("mean", "std"), [(-8.0, 0.7), (12.0, 0.7)])
def test_a_range_far_out_in_a_tail_is_still_drawn_from(mean: float, std: float) -> None:
    """Both ends are 10 and more standard deviations away, on one side or the other."""
    noise = LogNormal(0.4, 0.9, mean=mean, std=std)(Rectified(), U).flatten().logit().numpy()
    low, high = ((logit(end) - mean) / std for end in (0.4, 0.9))
    tail = norm.sf if low > 0 else norm.cdf
    below = (tail((noise - mean) / std) - tail(low)) / (tail(high) - tail(low))
    assert_close(torch.as_tensor(below), U, rtol=1e-6, atol=1e-9)


@every_chain
@pytest.mark.parametrize(("t_min", "t_max"), [(None, None), (0.101, 0.3), (0.5, 1.0)])
def test_every_step_of_a_chain_is_drawn_equally_often(
    schedule: Schedule, t_min: float | None, t_max: float | None
) -> None:
    first, last = round(1000 * (t_min or 0.001)), round(1000 * (t_max or 1.0))
    count = last - first + 1
    u = (torch.arange(3 * count, dtype=torch.float64) + 0.5) / (3 * count)
    steps = Uniform(t_min, t_max)(schedule, u).flatten() * 1000
    assert_close(steps, torch.arange(first, last + 1).repeat_interleave(3).double(), rtol=0, atol=1e-9)


@every_chain
@pytest.mark.parametrize(("t_min", "t_max"), [(None, None), (0.1, 0.4)])
def test_log_normal_steps_stand_for_the_noise_levels_nearest_to_them(
    schedule: Schedule, t_min: float | None, t_max: float | None
) -> None:
    first, last = round(1000 * (t_min or 0.001)), round(1000 * (t_max or 1.0))
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    steps = (LogNormal(t_min, t_max)(schedule, u).flatten() * 1000).round().long()
    drawn = torch.bincount(steps, minlength=1001)[first : last + 1] / 200_000
    edges = np.clip(np.arange(first, last + 2) - 0.5, 1, 1000) / 1000
    noise = -schedule.log_snr(torch.as_tensor(edges).reshape(-1, 1, 1, 1)).flatten().numpy() / 2
    mass = norm.cdf(noise, -1.2, 1.2)
    assert_close(drawn, torch.as_tensor(np.diff(mass) / (mass[-1] - mass[0])), rtol=0, atol=1.1e-5)


@every_chain
def test_logit_normal_steps_have_the_mass_of_their_own_stretch(schedule: Schedule) -> None:
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    steps = (LogitNormal()(schedule, u).flatten() * 1000).round().long()
    with np.errstate(divide="ignore"):
        mass = norm.cdf(logit(np.arange(1001) / 1000))
    drawn = torch.bincount(steps, minlength=1001)[1:] / 200_000
    assert_close(drawn, torch.as_tensor(np.diff(mass)), rtol=0, atol=1.1e-5)


@every_schedule
@every_density
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    ends=st.tuples(st.integers(1, 1000), st.integers(1, 1000)).filter(lambda e: e[0] != e[1]),
    u=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=8),
)
def test_no_time_leaves_the_range(
    schedule: Schedule, density: type[Times], ends: tuple[int, int], u: list[float]
) -> None:
    first, last = min(ends) / 1000, max(ends) / 1000
    t = density(first, last)(schedule, torch.tensor(u))
    assert t.shape == (len(u), 1, 1, 1)
    assert t.dtype == torch.float64
    assert (t >= first - 1e-12).all()
    assert (t <= last + 1e-12).all()


@every_density
@pytest.mark.parametrize("name", CHAINS)
def test_times_on_a_chain_are_its_steps(density: type[Times], name: str) -> None:
    steps = density()(SCHEDULES[name], U) * 1000
    assert_close(steps, steps.round(), rtol=0, atol=1e-9)


@every_schedule
@every_density
def test_later_quantiles_are_later_times(schedule: Schedule, density: type[Times]) -> None:
    assert (density()(schedule, U).flatten().diff() >= 0).all()


@pytest.mark.parametrize(
    ("t_min", "t_max"),
    [
        (0.0, None),
        (0.0005, 1.0),
        (0.5, 0.5),
        (0.7, 0.2),
        (0.1, 1.5),
        (0.5001, 0.5009),
        (0.1, -math.inf),
        (math.nan, 1.0),
    ],
)
def test_an_empty_or_impossible_range_on_a_chain_raises(t_min: float, t_max: float | None) -> None:
    with pytest.raises(ValueError, match=rf"times.t_min={t_min:g}.*own range 0.001 to 1"):
        Uniform(t_min, t_max)(LinearBeta(), U)


@pytest.mark.parametrize(("t_min", "t_max"), [(-0.1, None), (0.9, 0.1), (0.1, 1.01), (0.3, 0.3)])
def test_an_empty_or_impossible_range_on_a_path_raises(t_min: float, t_max: float | None) -> None:
    with pytest.raises(ValueError, match=rf"times.t_min={t_min:g}.*own range 0.001 to 0.999"):
        Uniform(t_min, t_max).range(Rectified())


@every_path
@every_density
def test_the_whole_unit_interval_is_allowed(schedule: Schedule, density: type[Times]) -> None:
    t = density(0.0, 1.0)(schedule, torch.tensor([0.0, 0.5]))
    assert ((t >= 0) & (t <= 1)).all()
    assert density(0.0, 1.0).range(schedule) == (0.0, 1.0)


@every_schedule
def test_the_recorded_range_is_the_schedules_own_by_default(schedule: Schedule) -> None:
    assert Uniform().range(schedule) == schedule.time_range
    assert Uniform(t_max=0.5).range(schedule) == (1e-3, 0.5)
