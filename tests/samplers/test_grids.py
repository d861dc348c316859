"""The times that samplers visit."""

import math

import pytest
import torch
from catalogue import CHAINS, PATHS, SCHEDULES, every_schedule, per_image
from probes import Fixed
from torch import Tensor
from torch.testing import assert_close

from diffexp.samplers import Ancestral, Ddim, DpmSolverPP2M, Heun
from diffexp.schedule import Cosine, LinearBeta, Rectified, Schedule


def levels(schedule: Schedule, times: Tensor) -> Tensor:
    """sigma / alpha at the times."""
    t = times.reshape(-1, 1, 1, 1)
    return (schedule.sigma(t) / schedule.alpha(t)).flatten()


def test_the_plain_grid_is_equal_strides_from_start_to_end() -> None:
    denoiser = Fixed(LinearBeta(), 0.0)
    sampler = Ddim(4)
    sampler(denoiser, torch.ones(3, 1, 1, 1))
    assert [t.shape for t in denoiser.times] == [(3, 1, 1, 1)] * 4
    assert [t[0].item() for t in denoiser.times] == [1.0, 0.75, 0.5, 0.25]
    assert_close(sampler.times(LinearBeta()), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))


def test_karras_grid_on_edm_is_the_papers() -> None:
    """Karras et al. 2022, eq. 5 with sigma_min = 0.002, sigma_max = 80, rho = 7."""
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    paper = [(high + i / 17 * (low - high)) ** 7 for i in range(18)] + [0.0]
    assert_close(levels(SCHEDULES["edm"], Heun(18).times(SCHEDULES["edm"])), torch.tensor(paper), rtol=1e-12, atol=0)


@every_schedule
def test_log_snr_grid_has_equal_strides_of_log_snr_down_to_the_last_time_before_0(schedule: Schedule) -> None:
    times = DpmSolverPP2M(20, "log_snr", t_start=0.9).times(schedule)
    assert times[0] == 0.9
    assert times[-1] == 0
    rises = schedule.log_snr(times[:-1].reshape(-1, 1, 1, 1)).flatten().diff()
    assert_close(rises, rises.mean().expand(19), rtol=1e-9, atol=1e-9)


@every_schedule
def test_karras_grid_has_equal_strides_of_the_seventh_root(schedule: Schedule) -> None:
    rises = levels(schedule, Ddim(20, grid="karras", t_start=0.9, t_end=0.1).times(schedule)).pow(1 / 7).diff()
    assert_close(rises, rises.mean().expand(20), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("grid", ["log_snr", "karras"])
def test_the_last_time_before_0_is_a_chains_first_step_or_the_papers_lowest_level(grid: str) -> None:
    for name in CHAINS:
        assert Ddim(7, grid=grid).times(SCHEDULES[name])[-2].item() == pytest.approx(1 / 1000, rel=1e-12)
    for name in PATHS:
        last = Ddim(7, grid=grid).times(SCHEDULES[name])[-2:-1]
        assert levels(SCHEDULES[name], last).item() == pytest.approx(0.002, rel=1e-9)


@every_schedule
@pytest.mark.parametrize("grid", ["time", "log_snr", "karras"])
def test_every_grid_has_the_given_ends(grid: str, schedule: Schedule) -> None:
    for start, end in ((1.0, 0.0), (0.8, 0.0), (0.9, 0.2)):
        for steps in (1, 2, 13):
            times = Ddim(steps, grid=grid, t_start=start, t_end=end).times(schedule)
            assert times.dtype == torch.float64
            assert len(times) == steps + 1
            assert (times[0], times[-1]) == (start, end)
            assert (times.diff() < 0).all()


def test_a_grid_of_ones_own_gives_steps_start_and_end() -> None:
    for grid in (torch.tensor([0.9, 0.5, 0.4, 0.1]), [0.9, 0.5, 0.4, 0.1]):
        sampler = Heun(grid=grid)
        assert (sampler.steps, sampler.t_start, sampler.t_end) == (3, 0.9, 0.1)
        assert_close(sampler.times(Rectified()), torch.tensor([0.9, 0.5, 0.4, 0.1]))
    assert_close(Ancestral(3, grid=[0.9, 0.5, 0.4, 0.1]).times(Rectified()), torch.tensor([0.9, 0.5, 0.4, 0.1]))


def test_equal_grids_walk_alike_whoever_spaced_them() -> None:
    x, schedule = torch.randn(3, 1, 1, 1), SCHEDULES["cosine_cont"]
    named = DpmSolverPP2M(9, "log_snr", t_start=0.9)
    own = DpmSolverPP2M(grid=named.times(schedule))
    assert torch.equal(named(Fixed(schedule, 0.5), x), own(Fixed(schedule, 0.5), x))


def test_single_precision_grid_times_are_the_chains_own() -> None:
    """0.02 as float32 lies before the first of 50 steps."""
    chain = LinearBeta(50)
    times = Ddim(grid=torch.linspace(1, 0, 51, dtype=torch.float32)).times(chain)
    assert_close(times, torch.linspace(1, 0, 51), rtol=1e-15, atol=0)


def test_chains_exist_between_their_steps_but_not_before_the_first() -> None:
    assert Ddim(7).times(LinearBeta())[1].item() == pytest.approx(6 / 7)
    assert len(Ddim(80, grid="log_snr").times(LinearBeta(50))) == 81
    x = torch.ones(1, 1, 1, 1)
    for sampler in (Ddim(60), Ddim(26, t_start=0.5), Ddim(3, t_end=0.01), Ddim(3, grid="karras", t_end=0.01)):
        with pytest.raises(
            ValueError, match=rf"sampler.steps={sampler.steps} on a chain of 50: .* no times in \(0, 0.02"
        ):
            sampler.times(LinearBeta(50))
    with pytest.raises(ValueError, match=r"sampler.steps=2 on a chain of 50: the grid has t = 0.01"):
        Ddim(grid=[1.0, 0.01, 0.0]).times(Cosine(50))
    with pytest.raises(ValueError, match=r"set sampler.steps=25 or fewer"):
        Ddim(26, t_start=0.5)(Fixed(LinearBeta(50), 0.0), x)
    assert math.isfinite(Ddim(60)(Fixed(Rectified(50), 0.0), x).item())


def test_a_grid_that_starts_where_nothing_is_left_is_spaced_from_the_schedules_own_range() -> None:
    schedule = Rectified()
    times = DpmSolverPP2M(8, "log_snr").times(schedule)
    inner = DpmSolverPP2M(8, "log_snr", t_start=0.999).times(schedule)
    assert times[0] == 1
    assert_close(times[1:], inner[1:])
    assert schedule.alpha(per_image([1.0])).item() == 0


@pytest.mark.parametrize(
    "grid", [[0.5], [0.5, 0.5], [0.2, 0.5], [1.5, 0.5], [0.5, -0.1], [[1.0, 0.0]], [1.0, math.nan, 0]]
)
def test_a_grid_that_does_not_go_down_within_0_and_1_raises(grid: list[float]) -> None:
    with pytest.raises(ValueError, match=r"sampler.grid=\[.*two or more decreasing times in \[0, 1\].*time, log_snr"):
        Ddim(grid=torch.tensor(grid))


def test_an_unknown_grid_and_a_contradicted_one_raise() -> None:
    with pytest.raises(ValueError, match=r"sampler.grid=quadratic: there are time, log_snr, karras"):
        Ddim(grid="quadratic")
    with pytest.raises(ValueError, match=r"sampler.steps=5 with a sampler.grid of 3 times .* implies steps=2"):
        Ddim(5, grid=[1.0, 0.5, 0.0])
    with pytest.raises(ValueError, match=r"sampler.t_start=0.9 with a sampler.grid .* implies t_start=1"):
        Ddim(grid=[1.0, 0.5, 0.0], t_start=0.9)
    with pytest.raises(ValueError, match=r"sampler.grid=karras from t_start=0.001: its last time before 0 is 0.00199"):
        Ddim(5, grid="karras", t_start=0.001).times(Rectified())
