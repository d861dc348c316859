"""The deterministic samplers follow the probability flow, each at its order."""

import dataclasses
from typing import Any

import pytest
import torch
from catalogue import SCHEDULES
from probes import LAWS, Mixture1d, Posterior
from torch import Tensor
from torch.testing import assert_close

from diffexp.samplers import Ddim, DpmSolverPP2M, Heun, ProbabilityFlow, Sampler
from diffexp.targets import Estimate

NUMBERS = torch.linspace(-2, 2, 16, dtype=torch.float64).reshape(-1, 1, 1, 1)
MEAN, VARIANCE = torch.tensor([0.5, 0.25], dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "grid"),
    [("cosine_cont", "log_snr"), ("rectified", "time"), ("edm", "karras")],
)
@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (Ddim(), 1),
        (ProbabilityFlow(method="euler"), 1),
        (Heun(), 2),
        (DpmSolverPP2M(), 2),
        (ProbabilityFlow(method="heun"), 2),
    ],
    ids=["ddim", "euler", "heun", "dpmpp_2m", "flow_heun"],
)
def test_orders_of_convergence_are_those_promised(sampler: Sampler, order: int, name: str, grid: str) -> None:
    """Twice the strides, 2^order times closer to where the exact flow goes, from a level that is not vast."""
    schedule, start = SCHEDULES[name], 0.02 if name == "edm" else 0.6
    denoiser = Posterior(schedule, MEAN, VARIANCE)
    end = start / 10
    x = schedule.sigma(torch.full((1, 1, 1, 1), start)) * NUMBERS
    exact = denoiser.flow(x, start, end)

    def error(steps: int) -> float:
        walk = dataclasses.replace(sampler, steps=steps, grid=grid, t_start=start, t_end=end)
        return (walk(denoiser, x) - exact).abs().mean().log2().item()

    assert error(50) - error(100) == pytest.approx(order, abs=0.1)


def test_whole_straight_paths_are_walked_at_second_order() -> None:
    """From pure noise to t = 0, where the network is not evaluated: the last stride must not spoil it."""
    denoiser = Posterior(SCHEDULES["rectified"], MEAN, VARIANCE)
    exact = denoiser.flow(NUMBERS, 1.0, 0.0)
    coarse, fine = ((ProbabilityFlow(steps)(denoiser, NUMBERS) - exact).abs().mean() for steps in (50, 100))
    assert torch.log2(coarse / fine).item() == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("flow", LAWS["quantile_maps"], ids=lambda flow: f"{len(flow['means'])} parts")
@pytest.mark.parametrize(
    ("sampler", "name", "close"),
    [
        (ProbabilityFlow(10, "adaptive", tolerance=1e-7), "edm", 1e-6),
        (ProbabilityFlow(10, "adaptive", tolerance=1e-8), "rectified", 1e-6),
        (ProbabilityFlow(200, "heun"), "rectified", 3e-4),
        (DpmSolverPP2M(250, "karras"), "edm", 2e-3),
        (Heun(150), "linear_beta", 3e-3),
    ],
    ids=lambda a: type(a).__name__ if isinstance(a, Sampler) else str(a),
)
def test_numbers_from_a_mixture_are_carried_quantile_to_quantile(
    flow: dict[str, Any], sampler: Sampler, name: str, close: float
) -> None:
    """In one dimension the flow keeps the order of points, so that it is the map of quantiles."""
    schedule = SCHEDULES[name]
    denoiser = Mixture1d(schedule, flow["weights"], flow["means"], flow["variances"])
    x = sampler.start(schedule, torch.tensor(flow["z"]).reshape(-1, 1, 1, 1))
    assert_close(sampler(denoiser, x).flatten(), torch.tensor(flow["images"][name]), rtol=0, atol=close)


def test_adaptive_ends_with_the_noise_that_the_flow_leaves_on_a_smooth_density() -> None:
    """Its last stride, from sigma / alpha = 0.002: stopping at x0 instead would leave 2e-4 of the spread of 0.1."""
    for name in ("linear_beta_cont", "cosine_cont", "rectified", "edm"):
        denoiser = Posterior(SCHEDULES[name], MEAN, torch.tensor(0.01))
        sampler = ProbabilityFlow(20, "adaptive", tolerance=1e-9, t_start=0.9)
        x = sampler.start(denoiser.schedule, NUMBERS)
        assert_close(sampler(denoiser, x), denoiser.flow(x, 0.9, 0.0), rtol=0, atol=1e-7)


def test_adaptive_spends_what_its_tolerance_costs() -> None:
    denoiser = Posterior(SCHEDULES["rectified"], MEAN, VARIANCE)
    spent: list[int] = []
    for tolerance in (1e-5, 1e-7, 1e-9):
        sampler = ProbabilityFlow(10, "adaptive", tolerance=tolerance)
        off = (sampler(denoiser, NUMBERS) - denoiser.flow(NUMBERS, 1.0, 0.0)).abs().max().item()
        assert off < 10 * tolerance
        spent.append(sampler.nfe)
    assert spent == sorted(set(spent))


def test_adaptive_never_asks_beyond_its_end() -> None:
    class Watched(Posterior):
        def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
            assert 0.3 - 1e-12 <= t.min() <= t.max() <= 0.7 + 1e-12
            return super().__call__(x_t, t)

    denoiser = Watched(SCHEDULES["rectified"], MEAN, VARIANCE)
    ProbabilityFlow(2, "adaptive", tolerance=1e-2, t_start=0.7, t_end=0.3)(denoiser, NUMBERS)


def test_adaptive_that_cannot_continue_raises() -> None:
    class Broken(Posterior):
        def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
            return Estimate(*(part * torch.nan for part in super().__call__(x_t, t)))

    with pytest.raises(
        ValueError, match=r"ProbabilityFlow.*cannot continue.*Increase sampler.tolerance, or take method=heun"
    ):
        ProbabilityFlow(5, "adaptive")(Broken(SCHEDULES["rectified"], MEAN, VARIANCE), NUMBERS)


@pytest.mark.parametrize("name", ["rectified", "edm"])
def test_flow_euler_is_ddim_where_paths_are_straight(name: str) -> None:
    """Both interpolations keep (x0, eps) fixed over a stride, and x is linear in t then."""
    schedule = SCHEDULES[name]
    denoiser = Posterior(schedule, MEAN, VARIANCE)
    x = schedule.sigma(torch.ones(1, 1, 1, 1)) * NUMBERS
    for grid in ("time", "karras"):
        ours = ProbabilityFlow(20, "euler", grid=grid)(denoiser, x)
        assert_close(ours, Ddim(20, grid=grid)(denoiser, x), rtol=1e-11, atol=1e-11)


def test_euler_in_edm_coordinates_is_ddim() -> None:
    """y' = y + (n' - n) eps with n = sigma / alpha and y = x / alpha (Song et al. 2021, eq. 14), on DDPM's chain."""
    chain, steps = SCHEDULES["linear_beta"], 25
    denoiser = Posterior(chain, MEAN, VARIANCE)
    t = (1 - torch.arange(steps + 1) / steps).reshape(-1, 1, 1, 1, 1)
    alpha, sigma = ([level(time) for time in t] for level in (chain.alpha, chain.sigma))
    y = NUMBERS / alpha[0]
    for i in range(steps):
        y = y + (sigma[i + 1] / alpha[i + 1] - sigma[i] / alpha[i]) * denoiser(alpha[i] * y, t[i]).eps
    assert_close(Ddim(steps)(denoiser, NUMBERS), y, rtol=1e-10, atol=1e-10)


def test_no_image_at_the_start_makes_heuns_first_stride_eulers() -> None:
    denoiser = Posterior(SCHEDULES["rectified"], MEAN, VARIANCE)
    sampler = Heun(50, "time")
    assert_close(sampler(denoiser, NUMBERS), denoiser.flow(NUMBERS, 1.0, 0.0), rtol=0, atol=2e-2)
    assert sampler.nfe == 98


def test_an_infinite_rate_at_0_makes_flow_heuns_last_stride_eulers() -> None:
    """The score there, which the velocity needs, is nothing that can be known without the network."""
    denoiser = Posterior(SCHEDULES["linear_beta_cont"], MEAN, VARIANCE)
    heun, euler = (ProbabilityFlow(grid=[0.01, 0.0], method=method) for method in ("heun", "euler"))
    assert_close(heun(denoiser, NUMBERS), euler(denoiser, NUMBERS), rtol=1e-14, atol=1e-14)
    assert heun.nfe == 1
