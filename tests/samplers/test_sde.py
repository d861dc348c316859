"""The stochastic samplers: their variances, and the laws of what they draw."""

import pytest
import torch
from catalogue import SCHEDULES, per_image
from probes import LAWS, Posterior, probe
from torch import Tensor
from torch.testing import assert_close

from diffexp.samplers import Ancestral, ReverseSde, Sampler
from diffexp.schedule import LinearBeta, Schedule

COUNT = 20_000
MEAN, VARIANCE = torch.tensor([0.5, 0.25], dtype=torch.float64)


class MmseOfNormal:
    """The least squared eps-error for normal data: alpha^2 s / (alpha^2 s + sigma^2)."""

    def __init__(self, variance: float) -> None:
        self.variance = variance

    def __call__(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(log_snr + torch.tensor(self.variance).log())


def spread(schedule: Schedule, t: float, variance: Tensor) -> Tensor:
    time = per_image([t])
    return schedule.alpha(time) ** 2 * variance + schedule.sigma(time) ** 2


@pytest.mark.parametrize("name", ["linear_beta", "linear_beta_cont", "rectified", "edm"])
def test_optimal_variance_keeps_normal_data_exact_on_any_grid(name: str) -> None:
    """With the posterior's own mean and variance each stride is the reverse of q, however few there are."""
    schedule = SCHEDULES[name]
    sampler = Ancestral(4, "optimal", grid="karras", mmse=MmseOfNormal(0.25), t_start=0.9, t_end=0.1)
    law = probe(sampler, schedule, Posterior(schedule, MEAN.view(1, 1, 1, 1), VARIANCE.view(1, 1, 1, 1)))
    came = law["gain"] ** 2 * spread(schedule, 0.9, VARIANCE) + law["noise_var"]
    assert_close(came, spread(schedule, 0.1, VARIANCE).expand_as(came), rtol=1e-9, atol=0)
    for wrong in ("beta", "beta_tilde"):
        law = probe(
            Ancestral(4, wrong, grid="karras", t_start=0.9, t_end=0.1),
            schedule,
            Posterior(schedule, MEAN.view(1, 1, 1, 1), VARIANCE.view(1, 1, 1, 1)),
        )
        assert abs(law["gain"] ** 2 * spread(schedule, 0.9, VARIANCE) + law["noise_var"] - came).item() > 1e-3


@pytest.mark.parametrize(("variance", "other"), [(1.0, "beta"), (1e-12, "beta_tilde")])
def test_optimal_variance_is_beta_for_unit_normal_data_and_beta_tilde_for_one_image(
    variance: float, other: str
) -> None:
    x, denoiser = torch.randn(8, 1, 2, 2), Posterior(LinearBeta(), torch.tensor(0.0), torch.tensor(variance))
    ours, theirs = (
        sampler(denoiser, x, torch.Generator().manual_seed(1))
        for sampler in (Ancestral(30, "optimal", mmse=MmseOfNormal(variance)), Ancestral(30, other))
    )
    assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_an_error_summed_over_pixels_is_not_taken_for_one_per_dimension() -> None:
    denoiser = Posterior(LinearBeta(), MEAN, VARIANCE)
    sampler = Ancestral(5, "optimal", mmse=lambda log_snr: 64 * MmseOfNormal(0.25)(log_snr))
    with pytest.raises(ValueError, match=r"mmse\(.*lies between 0 and 1.*Divide a sum over dimensions"):
        sampler(denoiser, torch.randn(2, 1, 8, 8))


def test_reverse_sde_keeps_the_law_of_the_noising_to_first_order() -> None:
    schedule = SCHEDULES["cosine_cont"]
    denoiser = Posterior(schedule, MEAN.view(1, 1, 1, 1), VARIANCE.view(1, 1, 1, 1))

    def off(steps: int) -> float:
        law = probe(ReverseSde(steps, t_end=0.05, t_start=0.95), schedule, denoiser)
        came = law["gain"] ** 2 * spread(schedule, 0.95, VARIANCE) + law["noise_var"]
        return (came / spread(schedule, 0.05, VARIANCE) - 1).log2().item()

    assert off(100) - off(200) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "sampler",
    [Ancestral(10, "optimal", mmse=MmseOfNormal(0.25)), Ancestral(25), ReverseSde(50)],
    ids=["optimal", "beta", "sde"],
)
def test_what_is_drawn_has_the_law_that_the_probes_promise(sampler: Sampler) -> None:
    schedule = SCHEDULES["linear_beta_cont"]
    drawn = sampler(Posterior(schedule), torch.randn(COUNT, len(LAWS["data"]), 1, 1)).flatten(1)
    law = probe(sampler, schedule)
    variance = law["gain"] ** 2 + law["noise_var"]
    assert ((drawn.mean(0) - law["offset"]).abs() < 4 * (variance / COUNT).sqrt()).all()
    assert ((drawn.var(0) / variance - 1).abs() < 4 * (2 / COUNT) ** 0.5).all()


def test_langevin_step_is_the_papers() -> None:
    """Song et al. 2021, algorithms 4 and 5, worked by hand for one stride of two images."""
    schedule, r = SCHEDULES["linear_beta_cont"], 0.16
    denoiser = Posterior(schedule, MEAN, VARIANCE)
    noise = torch.randn(2, 2, 1, 2, 2)
    x = torch.randn(2, 1, 2, 2)
    plain = ReverseSde(1, t_start=0.6, t_end=0.5)(denoiser, x, noise=lambda i: noise[i])
    corrected = ReverseSde(1, t_start=0.6, t_end=0.5, langevin=r)(denoiser, x, noise=lambda i: noise[i])
    kept = (schedule.alpha(per_image([0.6])) / schedule.alpha(per_image([0.5]))).item() ** 2  # the paper's 1 - beta_i
    score = denoiser(plain, per_image([0.5, 0.5])).score
    for before, after, g, z in zip(plain, corrected, score, noise[1], strict=True):
        size = 2 * kept * (r * z.norm() / g.norm()) ** 2
        assert_close(after, before + size * g + (2 * size).sqrt() * z)


def test_langevin_steps_alone_lead_to_the_law_of_their_time() -> None:
    """On strides of almost no time; steps of finite size r widen the law, to first order by r^2 = 0.04."""
    schedule, variance = SCHEDULES["linear_beta_cont"], torch.tensor(0.25)
    out = ReverseSde(120, t_start=0.2, t_end=0.1999, langevin=0.2)(
        Posterior(schedule, torch.tensor(0.5), variance), 2 * torch.randn(60, 1, 12, 12)
    )
    assert out.mean().item() == pytest.approx(0.5 * schedule.alpha(per_image([0.2])).item(), abs=0.03)
    assert out.var().item() == pytest.approx(1.04 * spread(schedule, 0.2, variance).item(), rel=0.06)
