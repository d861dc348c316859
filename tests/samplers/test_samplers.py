"""Samplers against their exact output laws, which on normal data are affine, and what all samplers have in common."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from catalogue import PATHS, SCHEDULES, images, per_image, targets_on
from exact import Exact
from probes import LAWS, Fixed, Posterior, probe, sampler_of
from torch import Tensor
from torch.testing import assert_close

from diffexp.samplers import Ancestral, Ddim, DpmSolverPP2M, Heun, ProbabilityFlow, ReverseSde, Sampler
from diffexp.schedule import LinearBeta, Rectified
from diffexp.targets import X0, Epsilon, PosteriorMean, StepNoise, Target, V

ON_CHAINS = [Ddim(4), Ancestral(4), Heun(4), DpmSolverPP2M(4)]
ON_PATHS = [
    *ON_CHAINS,
    ReverseSde(4),
    ReverseSde(4, langevin=0.1),
    *(ProbabilityFlow(4, method, tolerance=0.1) for method in ("euler", "heun", "adaptive")),
]


def label(argument: object) -> str:
    if not isinstance(argument, Sampler):
        return str(argument)
    extra = [
        str(getattr(argument, name)) for name in ("eta", "variance", "method", "langevin") if hasattr(argument, name)
    ]
    return "-".join([type(argument).__name__, str(argument.steps), *extra])


every_sampler = pytest.mark.parametrize("sampler", ON_PATHS, ids=label)


def case_id(case: dict[str, Any]) -> str:
    return "-".join(str(case[key]) for key in ("sampler", "knob", "grid", "steps", "schedule"))


@pytest.mark.parametrize("case", LAWS["cases"], ids=case_id)
def test_output_laws_are_those_of_the_reference(case: dict[str, Any]) -> None:
    law = probe(sampler_of(case), SCHEDULES[case["schedule"]])
    for name, got in law.items():
        assert got.tolist() == pytest.approx([known[name] for known in case["laws"]], rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("case", LAWS["full_covariance"]["outputs"], ids=case_id)
def test_correlated_pixels_come_out_with_a_known_covariance(case: dict[str, Any]) -> None:
    """In the data's own axes each is a case of its own, so one walk per axis makes the whole law."""
    schedule, sampler = SCHEDULES[case["schedule"]], sampler_of(case)
    variances, axes = torch.linalg.eigh(torch.tensor(LAWS["full_covariance"]["covariance"]))
    mean = axes.T @ torch.tensor(LAWS["full_covariance"]["mean"])
    law = probe(sampler, schedule, Posterior(schedule, mean.view(1, 3, 1, 1), variances.view(1, 3, 1, 1)))
    spread = law["gain"] ** 2 * case["start_variance"] + law["noise_var"]
    assert_close(axes @ law["offset"], torch.tensor(case["mean"]), rtol=1e-9, atol=1e-10)
    assert_close(axes * spread @ axes.T, torch.tensor(case["covariance"]), rtol=1e-9, atol=1e-10)


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
        (DpmSolverPP2M(10), 0.8990),
        (DpmSolverPP2M(50), 1.0061),
        (Ancestral(50, "optimal", mmse=torch.sigmoid), 0.9942),  # of unit normal data, whose optimal variance is beta
    ],
    ids=label,
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


@pytest.mark.parametrize(
    ("sampler", "name"),
    [
        *((sampler, name) for sampler in ON_CHAINS for name in SCHEDULES),
        *((sampler, name) for sampler in ON_PATHS[5:-1] for name in PATHS),
        (ON_PATHS[-1], "rectified"),
    ],
    ids=label,
)
def test_every_target_gives_the_same_images(sampler: Sampler, name: str) -> None:
    schedule = SCHEDULES[name]
    sampler = dataclasses.replace(sampler, steps=2, t_start=0.95)
    x = sampler.start(schedule, torch.randn(2, 1, 2, 2))

    def images_of(target: Target) -> Tensor:
        return sampler(Exact(schedule, target, 0.5, 0.25), x, torch.Generator().manual_seed(1))

    wanted = images_of(V())
    assert wanted.isfinite().all()
    for target in targets_on(schedule).values():
        assert_close(images_of(target), wanted, rtol=1e-6, atol=1e-6, msg=lambda m: f"{target}: {m}")  # noqa: B023


@every_sampler
def test_clipping_clamps_the_image_and_recomputes_the_noise(sampler: Sampler) -> None:
    """A prediction x0 = 3 clipped to 1 gives the walk of a prediction 1, step by step."""
    x = torch.randn(4, 1, 2, 2)
    ours, theirs = (
        dataclasses.replace(sampler, steps=12, clip=clip, t_start=0.9, t_end=0.25)(
            Fixed(Rectified(), x0), x, torch.Generator().manual_seed(1)
        )
        for clip, x0 in ((True, 3.0), (False, 1.0))
    )
    assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", ON_CHAINS, ids=label)
def test_images_end_at_what_is_believed_and_are_clipped_only_on_request(sampler: Sampler) -> None:
    x = torch.randn(4, 1, 2, 2)
    assert_close(sampler(Fixed(Rectified(), 3.0), x), torch.full_like(x, 3.0))
    clipped = dataclasses.replace(sampler, clip=True)
    assert_close(clipped(Fixed(Rectified(), -3.0), x), -torch.ones_like(x))


def test_clipping_leaves_predictions_within_range_alone() -> None:
    x = torch.randn(4, 1, 2, 2)
    denoiser = Exact(LinearBeta(), V(), 0.1, 1e-4)
    assert_close(Ddim(20, clip=True)(denoiser, x), Ddim(20)(denoiser, x), rtol=1e-9, atol=1e-9)


COUNTS: list[tuple[Sampler, int | None]] = [
    (Ddim(7), 7),
    (Ancestral(7), 7),
    (DpmSolverPP2M(7), 7),
    (Heun(7), 13),
    (Heun(7, t_start=0.9, t_end=0.1), 14),
    (Heun(1), 1),
    (ReverseSde(7), 7),
    (ReverseSde(7, langevin=0.1), 14),
    (ProbabilityFlow(7, "euler"), 7),
    (ProbabilityFlow(7, "heun"), 13),
    (ProbabilityFlow(7, "heun", t_end=0.1), 14),
    (ProbabilityFlow(7, "adaptive"), None),
]


@pytest.mark.parametrize(("sampler", "count"), COUNTS, ids=label)
def test_evaluations_are_counted_afresh_by_each_call(sampler: Sampler, count: int | None) -> None:
    for _ in range(2):
        denoiser = Fixed(SCHEDULES["edm"], 0.0)
        sampler(denoiser, torch.ones(3, 1, 1, 1))
        assert sampler.nfe == len(denoiser.times) == (count or sampler.nfe)
        assert {(t.shape, t.dtype) for t in denoiser.times} == {((3, 1, 1, 1), torch.float64)}


@every_sampler
def test_single_precision_images_are_walked_in_single_precision(sampler: Sampler) -> None:
    """And so are the times passed to the denoiser, on every grid."""
    x = torch.randn(8, 4, 1, 1)
    schedule = SCHEDULES["linear_beta_cont"]

    def walked(x: Tensor) -> Tensor:
        noise = torch.randn(2 * sampler.steps, *x.shape, generator=torch.Generator().manual_seed(1)).to(x)
        return sampler(Exact(schedule, V(), 0.5, 0.25), x, noise=lambda stride: noise[stride])

    single, denoiser = walked(x.float()), Fixed(schedule, 0.0)
    assert single.dtype == torch.float32
    assert_close(single.double(), walked(x), rtol=2e-3, atol=2e-3)
    sampler(denoiser, x.float())
    assert {t.dtype for t in denoiser.times} == {torch.float32}


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
    drawn.clear()
    ReverseSde(3, langevin=0.1)(Fixed(SCHEDULES["edm"], 0.0), x, noise=noise)
    assert drawn == [0, 3, 1, 4, 2, 5]  # of the corrector: number steps + i


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
    drawn = sampler(Posterior(LinearBeta()), torch.randn(20_000, len(LAWS["data"]), 1, 1)).flatten(1)
    law = probe(sampler, LinearBeta())
    variance = law["gain"] ** 2 + law["noise_var"]
    assert ((drawn.mean(0) - law["offset"]).abs() < 4 * (variance / 20_000).sqrt()).all()
    assert ((drawn.var(0) / variance - 1).abs() < 4 * (2 / 20_000) ** 0.5).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ddim(0), r"needs steps >= 1 and 0 <= t_end < t_start <= 1"),
        (lambda: Ddim(5, t_start=1.2), r"needs steps >= 1 and 0 <= t_end < t_start <= 1"),
        (lambda: Ddim(5, t_end=-0.1), r"needs steps >= 1 and 0 <= t_end < t_start <= 1"),
        (lambda: Heun(5, t_start=0.2, t_end=0.2), r"needs steps >= 1 and 0 <= t_end < t_start <= 1"),
        (lambda: Ddim(5, eta=-0.1), r"sampler.eta=-0.1: from 0 .* to 1"),
        (lambda: Ancestral(5, "small"), r"sampler.variance=small: there are beta, beta_tilde, optimal"),
        (lambda: Ancestral(5, "optimal"), r"variance=optimal depends on the data: pass mmse="),
        (lambda: ProbabilityFlow(5, "rk4"), r"sampler.method=rk4: there are euler, heun, adaptive"),
        (lambda: ProbabilityFlow(5, "adaptive", tolerance=0.0), r"sampler.tolerance=0.0: between 0 and 1"),
        (lambda: ReverseSde(5, langevin=-1.0), r"sampler.langevin=-1.0: a signal-to-noise ratio"),
        (lambda: ReverseSde(5, 0.0, langevin=0.1), r"down to t_end=0: without noise there is no score"),
    ],
)
def test_an_impossible_sampler_raises(make: Callable[[], Sampler], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("sampler", [ReverseSde(5), ProbabilityFlow(5, "euler")], ids=repr)
def test_equations_in_t_raise_on_a_chain(sampler: Sampler) -> None:
    with pytest.raises(ValueError, match=r"the chain LinearBeta.*schedule=linear_beta_cont.*sampler=ancestral"):
        sampler.times(LinearBeta())


@pytest.mark.parametrize("sampler", [ReverseSde(5), Ancestral(5, "optimal", mmse=torch.sigmoid)], ids=["sde", "chain"])
def test_what_divides_by_alpha_does_not_start_at_pure_noise(sampler: Sampler) -> None:
    with pytest.raises(ValueError, match=r"from t_start=1 on Rectified.*sampling.t_start=0.999"):
        sampler.times(Rectified())
    assert len(dataclasses.replace(sampler, t_start=0.999).times(Rectified())) == 6
