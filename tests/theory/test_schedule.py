"""Schedules against the numbers of another program, their textbook ends, and their own inverses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from catalogue import (
    CHAINS,
    PATHS,
    SCHEDULES,
    VARIANCE_PRESERVING,
    every_chain,
    every_path,
    every_schedule,
    per_image,
    reference,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from diffexp.schedule import Chain, Cosine, LinearBeta, Rectified, Schedule

GRIDS = [LinearBeta(50), LinearBeta(7), LinearBeta(1000), Cosine(100), Cosine(4000), LinearBeta(3)]
every_grid = pytest.mark.parametrize("chain", GRIDS, ids=repr)


@pytest.mark.parametrize("level", ["alpha", "sigma", "log_snr"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_levels_are_those_of_the_reference(name: str, level: str) -> None:
    known = reference("targets")[name]
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-4)):
        got = getattr(SCHEDULES[name], level)(per_image(known["t"], dtype))
        assert got.dtype == dtype
        assert_close(got.double(), per_image(known[level]), rtol=tolerance, atol=1e-3 * tolerance)


def test_linear_betas_are_ddpms() -> None:
    """Ho et al. 2020, section 4."""
    betas = LinearBeta().betas()
    assert (betas[0].item(), betas[-1].item(), len(betas)) == (1e-4, 0.02, 1000)
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    t = per_image(np.arange(1, 1001) / 1000)
    assert_close(LinearBeta().alpha(t).flatten() ** 2, torch.as_tensor(abar), rtol=1e-12, atol=0)


def test_cosine_betas_are_nichol_and_dhariwals() -> None:
    """arXiv:2102.09672, eq. 17: abar = f(t) / f(0), f = cos^2((t + s) / (1 + s) pi / 2), betas to 0.999."""
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
    assert_close(Cosine().betas(), torch.as_tensor(betas), rtol=1e-9, atol=1e-13)
    assert betas[-1] == 0.999


@every_schedule
def test_the_clean_end_is_exact(schedule: Schedule) -> None:
    start = per_image([0.0])
    levels = (schedule.alpha(start), schedule.sigma(start), schedule.log_snr(start))
    assert [level.item() for level in levels] == [1.0, 0.0, math.inf]


@pytest.mark.parametrize(
    ("name", "alpha", "sigma"),
    [("cosine_cont", 0.0, 1.0), ("rectified", 0.0, 1.0), ("edm", 1.0, 80.0)],
)
def test_the_noisy_end_is_exact(name: str, alpha: float, sigma: float) -> None:
    end = per_image([1.0])
    assert SCHEDULES[name].alpha(end).item() == alpha
    assert SCHEDULES[name].sigma(end).item() == pytest.approx(sigma, rel=1e-15)
    assert SCHEDULES[name].log_snr(end).item() == pytest.approx(2 * math.log(alpha / sigma) if alpha else -math.inf)


def test_the_noisy_end_of_ddpm_still_holds_a_trace_of_the_image() -> None:
    assert LinearBeta().alpha(per_image([1.0])).item() == pytest.approx(0.0063528, abs=1e-7)
    assert LinearBeta().sigma(per_image([0.001])).item() == pytest.approx(0.01, rel=1e-13)


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_variance_is_preserved(name: str) -> None:
    schedule, t = SCHEDULES[name], per_image(np.arange(0, 1001) / 1000)
    assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t), rtol=1e-14, atol=0)


@every_schedule
@pytest.mark.parametrize("t", [-1e-6, 1.001, 1000.0])
def test_times_off_the_unit_interval_raise(schedule: Schedule, t: float) -> None:
    with pytest.raises(ValueError, match=r"lives on \[0, 1\]"):
        schedule.alpha(per_image([0.5, t]))


@every_chain
@pytest.mark.parametrize("t", [1e-9, 0.0004, 0.000999])
def test_times_before_the_chains_first_step_raise(schedule: Schedule, t: float) -> None:
    for level in (schedule.alpha, schedule.sigma, schedule.log_snr):
        with pytest.raises(ValueError, match="before the chain's first step"):
            level(per_image([0.5, t]))


@every_grid
def test_float32_grid_times_have_the_values_of_the_grid(chain: Chain) -> None:
    k = torch.arange(1, chain.steps + 1, dtype=torch.float64)
    single = (k / chain.steps).float().reshape(-1, 1, 1, 1)
    for level in (chain.alpha, chain.sigma, chain.log_snr):
        assert torch.equal(level(single), level(per_image(k / chain.steps)).float())


@every_grid
def test_times_that_were_summed_up_have_the_values_of_the_grid(chain: Chain) -> None:
    summed = per_image(1 - np.cumsum(np.full(chain.steps - 1, 1 / chain.steps)))
    counted = per_image(np.arange(chain.steps - 1, 0, -1) / chain.steps)
    assert_close(chain.log_snr(summed), chain.log_snr(counted), rtol=1e-12, atol=1e-13)
    assert_close(chain.sigma(summed), chain.sigma(counted), rtol=1e-12, atol=0)


@every_chain
def test_log_snr_is_interpolated_linearly(schedule: Schedule) -> None:
    k = torch.tensor([1.0, 2.0, 500.0, 998.0, 999.0])
    below, above = (schedule.log_snr(per_image(steps / 1000)) for steps in (k, k + 1))
    for share in (0.1, 0.5, 0.75):
        between = schedule.log_snr(per_image((k + share) / 1000))
        assert_close(between, below + share * (above - below), rtol=1e-9, atol=1e-9)
        alpha, sigma = (level(per_image((k + share) / 1000)) for level in (schedule.alpha, schedule.sigma))
        assert_close(2 * (alpha / sigma).log(), between, rtol=1e-12, atol=1e-12)


@every_schedule
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_time_inverts_log_snr(schedule: Schedule, data: st.DataObject) -> None:
    first, last = schedule.time_range
    t = per_image(data.draw(st.lists(st.floats(first, last), min_size=1, max_size=8)))
    log_snr = schedule.log_snr(t)
    assert_close(schedule.time(log_snr), t, rtol=1e-7, atol=1e-9)
    assert_close(schedule.log_snr(schedule.time(log_snr)), log_snr, rtol=1e-9, atol=1e-9)


@every_schedule
def test_a_log_snr_out_of_reach_has_the_nearer_ends_time(schedule: Schedule) -> None:
    first = 1 / schedule.steps if schedule.is_chain else 0.0
    reached = schedule.time(torch.tensor([math.inf, -math.inf, -80.0]))
    assert_close(reached, torch.tensor([first, 1.0, 1.0]), rtol=1e-12, atol=1e-12)


@every_schedule
def test_log_snr_strictly_decreases(schedule: Schedule) -> None:
    log_snr = schedule.log_snr(per_image(np.arange(1, 2000) / 2000 * 0.999 + 1e-3)).flatten()
    assert (log_snr.diff() < 0).all()


@every_path
def test_rates_are_the_derivatives(schedule: Schedule) -> None:
    for rate, level in zip(schedule.rates(T), (schedule.alpha, schedule.sigma), strict=True):
        t = T.clone().requires_grad_()
        slope = torch.zeros_like(t)
        if (levels := level(t)).requires_grad:
            (slope,) = torch.autograd.grad(levels.sum(), t)
        assert_close(rate, slope, rtol=1e-9, atol=1e-12)


T = per_image([0.001, 0.01, 0.2, 0.5, 0.77, 0.95, 0.999])


def test_a_chain_has_no_rates_and_points_to_v() -> None:
    with pytest.raises(ValueError, match="target=v"):
        LinearBeta().rates(T)


@every_schedule
def test_a_step_leads_from_the_levels_before_to_the_levels_now(schedule: Schedule) -> None:
    t = per_image([0.001, 0.002, 0.1, 0.5, 0.9, 0.999])
    s = t - 0.001
    step = schedule.step(t)
    assert_close(step.alpha_s, schedule.alpha(s), rtol=1e-12, atol=0)
    assert_close(step.sigma_s, schedule.sigma(s), rtol=1e-12, atol=0)
    assert_close(step.ratio * step.alpha_s, schedule.alpha(t), rtol=1e-12, atol=0)
    assert_close((step.ratio * step.sigma_s) ** 2 + step.beta, schedule.sigma(t) ** 2, rtol=1e-12, atol=0)
    assert_close(step.alpha_s + step.alpha_rise, schedule.alpha(t), rtol=1e-12, atol=0)
    assert_close(step.sigma_s + step.sigma_rise, schedule.sigma(t), rtol=1e-12, atol=0)
    assert_close(step.kept * schedule.sigma(t), step.ratio * step.sigma_s, rtol=1e-9, atol=1e-15)


@every_chain
def test_a_chains_step_adds_its_beta(schedule: Chain) -> None:
    t = per_image(np.arange(1, schedule.steps + 1) / schedule.steps)
    assert_close(schedule.step(t).beta.flatten(), schedule.betas(), rtol=1e-10, atol=0)
    assert_close(schedule.step(t).ratio.flatten(), (1 - schedule.betas()).sqrt(), rtol=1e-10, atol=0)


@every_schedule
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_at_the_first_step_all_noise_is_new(schedule: Schedule, dtype: torch.dtype) -> None:
    first = per_image([1e-3], dtype)
    step = schedule.step(first)
    assert [step.kept.item(), step.sigma_s.item(), step.alpha_s.item()] == [0.0, 0.0, 1.0]
    assert_close(step.beta, schedule.sigma(first) ** 2)


def test_noising_is_the_weighted_sum() -> None:
    t, x0, eps = per_image([0.25, 1.0]), torch.full((2, 1, 1, 1), 2.0), torch.full((2, 1, 1, 1), -4.0)
    assert Rectified().noised(t, x0, eps).flatten().tolist() == [0.75 * 2 - 0.25 * 4, -4.0]
    assert Rectified().noised(t, x0.float(), eps.float()).dtype == torch.float32


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_first_used_in_inference_mode_can_still_be_trained_on(name: str) -> None:
    schedule = replace(SCHEDULES[name], steps=123)  # not in the cache yet
    t = per_image([1 / 123, 0.5])
    with torch.inference_mode():
        schedule.alpha(t)
    x0 = torch.ones(2, 1, 1, 1, requires_grad=True)
    (slope,) = torch.autograd.grad(schedule.noised(t, x0, torch.zeros(2, 1, 1, 1)).sum(), x0)
    assert_close(slope, schedule.alpha(t), rtol=0, atol=0)


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("chain", [LinearBeta, Cosine])
def test_the_shortest_chains_work(chain: type[LinearBeta] | type[Cosine], steps: int) -> None:
    t = per_image(np.arange(steps + 1) / steps)
    abar = torch.cat([torch.ones(1), (1 - chain(steps).betas()).cumprod(0)])
    assert_close(chain(steps).alpha(t).flatten(), abar.sqrt(), rtol=1e-12, atol=0)
    assert_close(chain(steps).time(chain(steps).log_snr(t[1:])), t[1:], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearBeta(1),
        lambda: LinearBeta(beta_min=0.03),
        lambda: LinearBeta(beta_max=1.0),
        lambda: LinearBeta(beta_min=0.0),
        lambda: Cosine(0),
        lambda: Cosine(beta_clip=1.0),
        lambda: Cosine(offset=0.0),
    ],
)
def test_an_impossible_chain_raises_and_suggests_a_valid_one(make: "type[LinearBeta]") -> None:
    with pytest.raises(ValueError, match=r"needs .* for example the defaults"):
        make()


@pytest.mark.parametrize("name", PATHS)
def test_continuous_schedules_stay_off_both_ends_by_default(name: str) -> None:
    assert SCHEDULES[name].time_range == (1e-3, 1 - 1e-3)


def test_chains_use_every_step_by_default() -> None:
    assert LinearBeta(50).time_range == (1 / 50, 1.0)
