"""Samplers against their exact output laws: every one is affine on normal data."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import SCHEDULES, images, per_image, reference, targets_on
from exact import Exact
from torch import Tensor
from torch.testing import assert_close

from diffexp.samplers import Ancestral, Ddim, Sampler
from diffexp.schedule import LinearBeta, Rectified, Schedule
from diffexp.targets import X0, Epsilon, Estimate, PosteriorMean, StepNoise, Target, V

LAWS = reference("samplers")
MEANS, VARIANCES = (per_image([law[k] for law in LAWS["data"]]).reshape(1, -1, 1, 1) for k in ("mean", "variance"))


def sampler_of(case: dict[str, Any]) -> Sampler:
    if case["sampler"] == "ddim":
        return Ddim(case["steps"], float(case["knob"]))
    return Ancestral(case["steps"], case["knob"])


class Posterior:
    """The exact belief about each kind of data in LAWS (the channels)."""

    def __init__(self, schedule: Schedule, times: Tensor) -> None:
        self.schedule = schedule
        t = times.reshape(-1, 1, 1, 1)
        levels = zip(schedule.alpha(t).flatten(), schedule.sigma(t).flatten(), strict=True)
        self.levels = dict(zip(times.tolist(), levels, strict=True))

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        alpha, sigma = self.levels[t[0].item()]
        news = (x_t - alpha * MEANS) / (alpha**2 * VARIANCES + sigma**2)
        return Estimate(MEANS + alpha * VARIANCES * news, sigma * news, -news)


def probe(sampler: Sampler, schedule: Schedule) -> dict[str, Tensor]:
    """Gain, offset and noise variance per kind of data (the channels), in one walk.

    The first two images start at 0 and 1 with no noise; each of the others sees one stride's noise alone.
    """
    strides = sampler.steps
    x = torch.zeros(2 + strides, len(LAWS["data"]), 1, 1)
    x[1] = 1

    def noise(stride: int) -> Tensor:
        one = torch.zeros_like(x)
        one[2 + stride] = 1
        return one

    out = sampler(Posterior(schedule, sampler.times(schedule)), x, noise=noise).flatten(1)
    offset = out[0]
    return {"gain": out[1] - offset, "offset": offset, "noise_var": (out[2:] - offset).square().sum(0)}


@pytest.mark.parametrize(
    "case", LAWS["cases"], ids=lambda c: f"{c['sampler']}-{c['knob']}-{c['steps']}-{c['schedule']}"
)
def test_output_laws_are_those_of_the_reference(case: dict[str, Any]) -> None:
    law = probe(sampler_of(case), SCHEDULES[case["schedule"]])
    for name, got in law.items():
        assert got.tolist() == pytest.approx([known[name] for known in case["laws"]], rel=1e-9, abs=1e-10)


@pytest.mark.parametrize(
    ("sampler", "variance"),
    [
        (Ancestral(10, "beta"), 0.8970),
        (Ancestral(50, "beta"), 0.9942),
        (Ancestral(10, "beta_tilde"), 0.5483),
        (Ancestral(50, "beta_tilde"), 0.8574),
        (Ddim(10), 0.6879),
        (Ddim(50), 0.9284),
        (Ddim(50, eta=1.0), 0.8574),
    ],
    ids=repr,
)
def test_unit_normal_data_come_out_with_a_known_variance(sampler: Sampler, variance: float) -> None:
    law = probe(sampler, LinearBeta())
    assert (law["gain"] ** 2 + law["noise_var"])[0].item() == pytest.approx(variance, abs=6e-5)


@pytest.mark.parametrize("name", ["linear_beta", "cosine", "cosine_cont", "rectified"])
def test_ddim_at_eta_one_is_ancestral_with_beta_tilde(name: str) -> None:
    schedule, x = SCHEDULES[name], torch.randn(3, 2, 2, 2)
    denoiser = Exact(schedule, V(), 0.3, 0.5)
    ours, theirs = (
        sampler(denoiser, x, torch.Generator().manual_seed(1))
        for sampler in (Ddim(20, eta=1.0), Ancestral(20, "beta_tilde"))
    )
    assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("schedule", [SCHEDULES["cosine_cont"], SCHEDULES["rectified"]], ids=repr)
def test_ddim_converges_to_the_probability_flow_at_first_order(schedule: Schedule) -> None:
    x, ends = torch.randn(16, 1, 1, 1), per_image([1.0, 0.0])
    denoiser = Exact(schedule, V(), 0.5, 0.25)
    end, start = denoiser.spread(ends[1:]), denoiser.spread(ends[:1])
    exact = 0.5 + (end / start).sqrt() * (x - schedule.alpha(ends[:1]) * 0.5)
    coarse, fine = ((Ddim(steps)(denoiser, x) - exact).abs().mean() for steps in (64, 128))
    assert torch.log2(coarse / fine).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler", [Ddim(4), Ancestral(4)], ids=repr)
def test_every_target_gives_the_same_images(sampler: Sampler, name: str) -> None:
    schedule = SCHEDULES[name]
    sampler = dataclasses.replace(sampler, t_start=0.95)
    x = sampler.start(schedule, torch.randn(2, 1, 2, 2))

    def images_of(target: Target) -> Tensor:
        return sampler(Exact(schedule, target, 0.5, 0.25), x, torch.Generator().manual_seed(1))

    wanted = images_of(V())
    for target in targets_on(schedule).values():
        assert_close(images_of(target), wanted, rtol=1e-7, atol=1e-7, msg=lambda m: f"{target}: {m}")  # noqa: B023


class Fixed:
    """Believes in one image whatever it sees, and remembers the times it was asked at."""

    def __init__(self, schedule: Schedule, x0: float) -> None:
        self.schedule, self.x0, self.asked = schedule, x0, list[Tensor]()

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        self.asked.append(t)
        x0 = torch.full_like(x_t, self.x0)
        eps = (x_t - self.schedule.alpha(t).to(x_t.dtype) * x0) / self.schedule.sigma(t).to(x_t.dtype)
        return Estimate(x0, eps, -eps / self.schedule.sigma(t).to(x_t.dtype))


@pytest.mark.parametrize("sampler", [Ddim, Ancestral])
def test_clipping_clamps_the_image_and_recomputes_the_noise(sampler: type[Ddim] | type[Ancestral]) -> None:
    """A belief in x0 = 3 clipped to 1 walks just like a belief in 1, step by step."""
    x = torch.randn(4, 1, 2, 2)
    ours, theirs = (
        sampler(12, clip=clip, t_end=0.25)(Fixed(Rectified(), x0), x, torch.Generator().manual_seed(1))
        for clip, x0 in ((True, 3.0), (False, 1.0))
    )
    assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert (sampler(12)(Fixed(Rectified(), 3.0), x) == 3).all()  # off by default
    assert_close(sampler(12, clip=True)(Fixed(Rectified(), -3.0), x), -torch.ones_like(x))


def test_clipping_leaves_beliefs_within_range_alone() -> None:
    x = torch.randn(4, 1, 2, 2)
    denoiser = Exact(LinearBeta(), V(), 0.1, 1e-4)
    assert_close(Ddim(20, clip=True)(denoiser, x), Ddim(20)(denoiser, x), rtol=1e-9, atol=1e-9)


def test_the_grid_is_equal_strides_from_start_to_end() -> None:
    denoiser = Fixed(LinearBeta(), 0.0)
    sampler = Ddim(4)
    sampler(denoiser, torch.ones(3, 1, 1, 1))
    assert [t.shape for t in denoiser.asked] == [(3, 1, 1, 1)] * 4
    assert [t[0].item() for t in denoiser.asked] == [1.0, 0.75, 0.5, 0.25]
    assert_close(sampler.times(LinearBeta()), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))


def test_evaluations_are_counted_afresh_by_each_call() -> None:
    for sampler in (Ddim(7), Ancestral(7)):
        for _ in range(2):
            denoiser = Fixed(LinearBeta(), 0.0)
            sampler(denoiser, torch.ones(1, 1, 1, 1))
            assert sampler.nfe == len(denoiser.asked) == 7


def test_only_strides_that_have_noise_draw_it() -> None:
    drawn: list[int] = []

    def noise(stride: int) -> Tensor:
        drawn.append(stride)
        return torch.zeros(1, 1, 1, 1)

    x = torch.ones(1, 1, 1, 1)
    Ddim(5)(Fixed(LinearBeta(), 0.0), x, noise=noise)
    assert drawn == []
    Ancestral(5)(Fixed(LinearBeta(), 0.0), x, noise=noise)
    assert drawn == [0, 1, 2, 3]


@pytest.mark.parametrize("steps", [3, 49, 50, 100])
def test_float32_walks_the_whole_chain_of_any_length(steps: int) -> None:
    """0.02 as float32 lies before the first of 50 steps."""
    chain = LinearBeta(max(steps, 50), 1e-4, 0.02)
    x = torch.randn(8, 1, 1, 1)
    single = Ddim(steps)(Exact(chain, Epsilon(), 0.5, 0.25), x.float())
    assert single.dtype == torch.float32
    assert_close(single.double(), Ddim(steps)(Exact(chain, Epsilon(), 0.5, 0.25), x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("target", [StepNoise(), PosteriorMean(), X0()], ids=repr)
def test_bfloat16_images_come_out_as_bfloat16(target: Target) -> None:
    x = torch.randn(8, 1, 1, 1).to(torch.bfloat16)
    assert Ddim(5)(Fixed(LinearBeta(), 0.5), x).dtype == torch.bfloat16
    assert Ddim(5)(Exact(LinearBeta(), target, 0.5, 0.25), x).shape == x.shape


def test_a_walk_may_start_late_at_the_noise_of_its_start() -> None:
    noise = images(0, per_image([0.0]))
    assert_close(Ddim(5).start(SCHEDULES["edm"], noise), 80 * noise)
    assert_close(Ddim(5, t_start=0.25).start(Rectified(), noise), 0.25 * noise)


def test_the_noise_is_the_generators_alone() -> None:
    x, denoiser = torch.randn(2, 1, 2, 2), Exact(LinearBeta(), V(), 0.0, 1.0)
    first = Ancestral(5)(denoiser, x, torch.Generator().manual_seed(1))
    torch.manual_seed(99)
    assert torch.equal(Ancestral(5)(denoiser, x, torch.Generator().manual_seed(1)), first)
    assert not torch.equal(Ancestral(5)(denoiser, x, torch.Generator().manual_seed(2)), first)
    assert Ddim(5)(denoiser, x).equal(Ddim(5)(denoiser, x))


def test_sampling_builds_no_graph() -> None:
    x = torch.randn(1, 1, 1, 1, requires_grad=True)
    assert not Ddim(3)(Exact(LinearBeta(), V(), 0.0, 1.0), x).requires_grad


def test_drawn_images_have_the_law_that_the_probes_promise() -> None:
    sampler = Ancestral(10)
    denoiser = Posterior(LinearBeta(), sampler.times(LinearBeta()))
    drawn = sampler(denoiser, torch.randn(20_000, len(LAWS["data"]), 1, 1)).flatten(1)
    law = probe(sampler, LinearBeta())
    variance = law["gain"] ** 2 + law["noise_var"]
    assert ((drawn.mean(0) - law["offset"]).abs() < 5 * (variance / 20_000).sqrt()).all()
    assert ((drawn.var(0) / variance - 1).abs() < 5 * (2 / 20_000) ** 0.5).all()


def test_more_steps_than_the_chain_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sampler.steps=60 on a chain of 50.*sampler.steps=50"):
        Ddim(60)(Fixed(LinearBeta(50), 0.0), torch.ones(1, 1, 1, 1))
    assert np.isfinite(Ddim(60)(Fixed(Rectified(50), 0.0), torch.ones(1, 1, 1, 1)).item())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ddim(0),
        lambda: Ddim(5, t_start=1.2),
        lambda: Ddim(5, t_end=-0.1),
        lambda: Ddim(5, t_start=0.2, t_end=0.2),
        lambda: Ancestral(0),
    ],
)
def test_an_impossible_walk_is_refused(make: type[Ddim]) -> None:
    with pytest.raises(ValueError, match="needs steps >= 1 and 0 <= t_end < t_start <= 1"):
        make()
