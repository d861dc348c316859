"""Against diffusers' scheduler of the same name, given the same prediction in the space that it takes.

Its tables are float32, which is what the tolerances allow for.
"""

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from catalogue import SCHEDULES, TARGETS
from exact import Exact
from torch import Tensor
from torch.testing import assert_close

from diffexp.samplers import Ancestral, Ddim, DpmSolverPP2M, Heun, ProbabilityFlow, ReverseSde
from diffexp.schedule import LinearBeta, Schedule

LINEAR: dict[str, Any] = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
TRAILING: dict[str, Any] = LINEAR | {"timestep_spacing": "trailing"}
TAKES = {"epsilon": "epsilon", "score": "epsilon", "x0": "sample", "v": "v_prediction"}
"""What diffusers is given for a network of ours; it takes no score."""

every_prediction = pytest.mark.parametrize("target", TAKES)


def pair(target: str, schedule: Schedule) -> tuple[Exact, Callable[[Tensor, float], Tensor]]:
    """Our denoiser, and its prediction at a time in the space that diffusers takes."""
    denoiser = Exact(schedule, TARGETS[target], 0.3, 0.2)

    def predict(x: Tensor, t: float) -> Tensor:
        time = torch.full((len(x), 1, 1, 1), t)
        estimate = denoiser(x, time)
        v = schedule.alpha(time) * estimate.eps - schedule.sigma(time) * estimate.x0
        return {"epsilon": estimate.eps, "sample": estimate.x0, "v_prediction": v}[TAKES[target]]

    return denoiser, predict


def walked(scheduler: Any, steps: int, x: Tensor, predict: Callable[[Tensor, float], Tensor], **step: Any) -> Tensor:
    """diffusers' own loop over its own timesteps; its k is our (k + 1) / T."""
    scheduler.set_timesteps(steps)
    for k in scheduler.timesteps:
        x = scheduler.step(predict(x, (float(k) + 1) / len(scheduler.betas)), k, x, **step).prev_sample
    return x


@every_prediction
@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim(target: str, eta: float) -> None:
    denoiser, predict = pair(target, SCHEDULES["linear_beta"])
    x = torch.randn(4, 1, 2, 2)
    scheduler = diffusers.DDIMScheduler(**TRAILING, clip_sample=False, prediction_type=TAKES[target])
    theirs = walked(scheduler, 25, x, predict, eta=eta, generator=torch.Generator().manual_seed(1))
    ours = Ddim(25, eta)(denoiser, x, torch.Generator().manual_seed(1))
    assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@every_prediction
def test_ddim_clipped(target: str) -> None:
    denoiser, predict = pair(target, SCHEDULES["linear_beta"])
    denoiser.mean = 0.9
    x = torch.randn(4, 1, 2, 2)
    scheduler = diffusers.DDIMScheduler(**TRAILING, clip_sample=True, prediction_type=TAKES[target])
    theirs = walked(scheduler, 20, x, predict, use_clipped_model_output=True)
    assert_close(Ddim(20, clip=True)(denoiser, x), theirs, rtol=1e-4, atol=1e-4)
    assert (theirs - Ddim(20)(denoiser, x)).abs().max() > 0.05


@every_prediction
@pytest.mark.parametrize(("variance", "theirs"), [("beta", "fixed_large"), ("beta_tilde", "fixed_small")])
def test_ancestral(target: str, variance: str, theirs: str) -> None:
    """Over every step of the chain: over fewer, diffusers' fixed_large adds noise in the last one too."""
    denoiser, predict = pair(target, LinearBeta(30))
    x = torch.randn(4, 1, 2, 2)
    short = TRAILING | {"num_train_timesteps": 30}
    scheduler = diffusers.DDPMScheduler(**short, clip_sample=False, variance_type=theirs, prediction_type=TAKES[target])
    expected = walked(scheduler, 30, x, predict, generator=torch.Generator().manual_seed(1))
    ours = Ancestral(30, variance)(denoiser, x, torch.Generator().manual_seed(1))
    assert_close(ours, expected, rtol=1e-3, atol=1e-3)


@every_prediction
def test_dpm_solver_pp_2m(target: str) -> None:
    denoiser, predict = pair(target, SCHEDULES["linear_beta"])
    x = torch.randn(4, 1, 2, 2)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **TRAILING, algorithm_type="dpmsolver++", solver_order=2, prediction_type=TAKES[target]
    )
    assert_close(DpmSolverPP2M(20)(denoiser, x), walked(scheduler, 20, x, predict), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", ["epsilon", "score"])
def test_heun_with_karras_grid_on_the_chain(target: str) -> None:
    """diffusers walks x / alpha, and finds the time of a level by interpolating log sigma / alpha, as we do log-SNR."""
    schedule = SCHEDULES["linear_beta"]
    denoiser, predict = pair(target, schedule)
    x = torch.randn(4, 1, 2, 2)
    scheduler = diffusers.HeunDiscreteScheduler(**LINEAR, use_karras_sigmas=True, prediction_type="epsilon")
    scheduler.set_timesteps(18)
    y = x / schedule.alpha(torch.ones(1, 1, 1, 1))
    for k in scheduler.timesteps:
        t = min((float(k) + 1) / 1000, 1.0)
        y = scheduler.step(predict(y * schedule.alpha(torch.full((1, 1, 1, 1), t)), t), k, y).prev_sample
    assert_close(Heun(18)(denoiser, x), y, rtol=1e-3, atol=1e-3)
    assert len(scheduler.timesteps) == 35


@pytest.mark.parametrize("target", ["edm", "score", "epsilon", "x0"])
@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [
        (Ddim(18, grid="karras"), diffusers.EDMEulerScheduler),
        (DpmSolverPP2M(18, "karras"), diffusers.EDMDPMSolverMultistepScheduler),
    ],
    ids=["euler", "dpmpp_2m"],
)
def test_edm_schedulers(sampler: Ddim | DpmSolverPP2M, scheduler: type, target: str) -> None:
    """These take EDM's F at c_in x, with time passed as log(sigma) / 4."""
    schedule = SCHEDULES["edm"]
    denoiser, edm = Exact(schedule, TARGETS[target], 0.3, 0.2), Exact(schedule, TARGETS["edm"], 0.3, 0.2)
    theirs = scheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5)
    theirs.set_timesteps(18)
    start = sampler.start(schedule, torch.randn(4, 1, 2, 2))
    x = start
    for k, sigma in zip(theirs.timesteps, theirs.sigmas, strict=False):
        theirs.scale_model_input(x, k)
        x = theirs.step(edm.predict(x, torch.full((4, 1, 1, 1), float(sigma) / 80)), k, x).prev_sample
    assert_close(sampler(denoiser, start), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", ["flow", "score", "v", "x0"])
def test_flow_matching_euler(target: str) -> None:
    schedule = SCHEDULES["rectified"]
    denoiser = Exact(schedule, TARGETS[target], 0.3, 0.2)
    sampler = ProbabilityFlow(20, "euler", t_start=0.98)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=sampler.times(schedule)[:-1].tolist())
    start = x = sampler.start(schedule, torch.randn(4, 1, 2, 2))
    for k in scheduler.timesteps:
        estimate = denoiser(x, torch.full((4, 1, 1, 1), float(k) / 1000))
        x = scheduler.step(estimate.eps - estimate.x0, k, x).prev_sample
    assert_close(sampler(denoiser, start), x, rtol=1e-4, atol=1e-4, check_dtype=False)


def test_langevin_corrector_is_score_sdes() -> None:
    """One image, since theirs averages the norms over a batch; on edm, where nothing is scaled down (their VE)."""
    schedule, snr = SCHEDULES["edm"], 0.16
    denoiser = Exact(schedule, TARGETS["score"], 0.3, 0.2)
    x, fresh = torch.randn(1, 1, 2, 2), torch.randn(1, 1, 2, 2)
    drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))

    def walk(langevin: float) -> Tensor:
        sampler = ReverseSde(1, t_start=0.02, t_end=0.01, langevin=langevin)
        return sampler(denoiser, x, noise=lambda i: (fresh, drawn)[i])

    predicted = walk(0.0)
    scheduler = diffusers.ScoreSdeVeScheduler(snr=snr)
    scheduler.set_timesteps(2)
    score = denoiser(predicted, torch.full((1, 1, 1, 1), 0.01)).score
    theirs = scheduler.step_correct(score, predicted, generator=torch.Generator().manual_seed(1)).prev_sample
    assert_close(walk(snr), theirs, rtol=1e-6, atol=1e-6)
