"""One currency for all targets, measured on an exactly right denoiser of normal data."""

import math

import pytest
import torch
from catalogue import SCHEDULES, TARGETS, WITH_LABEL_NOISE
from exact import Exact

from diffexp.data import MixtureData
from diffexp.denoiser import Denoiser
from diffexp.likelihood.bound import expected_vlb
from diffexp.objective import Objective
from diffexp.oracle import Mixture
from diffexp.times import LogitNormal, Uniform
from diffexp.training.validation import HeldOut

VARIANCE = 0.25
DATA = MixtureData(
    "white",
    weights=torch.ones(1),
    means=torch.zeros(1, 1, 4, 4),
    covariances=VARIANCE * torch.eye(16).unsqueeze(0),
)
SCHEDULE = SCHEDULES["linear_beta"]


class Silent(torch.nn.Module):
    """Answers zero."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def held(target: str = "epsilon", **changes: object) -> HeldOut:
    given = {"data": DATA, "objective": Objective(TARGETS[target]), "schedule": SCHEDULE, "times": Uniform()}
    return HeldOut(**{**given, "count": 4000, "batch_size": 1000, **changes})


def test_the_belief_errors_of_the_right_denoiser_are_those_of_bayes() -> None:
    found = held().measure(Exact(SCHEDULE, TARGETS["epsilon"], 0.0, VARIANCE))
    t = (torch.arange(1000.0).reshape(-1, 1, 1, 1) + 1) / 1000
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    eps = alpha**2 * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
    units = {"eps": eps, "x0": eps * (sigma / alpha) ** 2, "v": eps / alpha**2, "score": eps / sigma**2}
    for unit, error in units.items():
        assert found[f"val/belief_{unit}"] == pytest.approx(error.mean().item(), rel=0.05), unit
        inside = (SCHEDULE.log_snr(t) >= 2) & (SCHEDULE.log_snr(t) < 4)
        assert found[f"val/belief_{unit}/lam_2_4"] == pytest.approx(error[inside].mean().item(), rel=0.05), unit


@pytest.mark.parametrize("target", [t for t in TARGETS if t != "flow"])
def test_one_belief_told_by_any_target_is_one_error(target: str) -> None:
    ours = held(target).measure(Exact(SCHEDULE, TARGETS[target], 0.0, VARIANCE))
    theirs = held("v").measure(Exact(SCHEDULE, TARGETS["v"], 0.0, VARIANCE))
    beliefs = [key for key in ours if "belief" in key]
    assert len(beliefs) > 40
    # float32 images: the answer is rounded before it is read, and the step targets read it through a gain of 100.
    assert [ours[k] for k in beliefs] == pytest.approx([theirs[k] for k in beliefs], rel=2e-2, abs=1e-9)


@pytest.mark.parametrize("target", ["epsilon", "step_noise", "score", "x0"])
def test_the_loss_of_silence_is_the_zero_loss(target: str) -> None:
    found = held(target).measure(Denoiser(Silent(), SCHEDULE, TARGETS[target]))
    assert found["val/loss"] == found["val/zero_loss"] == held(target).zero_loss


@pytest.mark.parametrize("target", WITH_LABEL_NOISE)
def test_news_is_in_the_loss_and_not_in_the_belief(target: str) -> None:
    bench = held(target)
    found = bench.measure(Exact(SCHEDULE, TARGETS[target], 0.0, VARIANCE))
    c = TARGETS[target].coefficients(SCHEDULE, bench.t).c
    gain = TARGETS[target].gain(SCHEDULE, bench.t)
    alpha, sigma = SCHEDULE.alpha(bench.t), SCHEDULE.sigma(bench.t)
    bayes = (gain / alpha) ** 2 * alpha**2 * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
    assert found["val/loss"] == pytest.approx((bayes + c**2).mean().item(), rel=0.02)


def test_the_draws_do_not_depend_on_what_is_compared() -> None:
    ours = held("step_noise", objective=Objective(TARGETS["step_noise"], TARGETS["x0"]), times=LogitNormal())
    theirs = held("epsilon")
    for name in ("x0", "t", "eps", "xi"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_every_stratum_of_time_has_one_draw() -> None:
    steps = (held(schedule=SCHEDULE, count=1000).t.flatten() * 1000).round()
    assert steps.sort().values.tolist() == list(range(1, 1001))
    even = held(schedule=SCHEDULES["rectified"], times=Uniform(0.1, 0.9), count=100).t.flatten().sort().values
    strata = ((even - 0.1) / 0.8 * 100).floor()
    assert strata.tolist() == list(range(100))


def test_every_band_is_named_by_its_edges_and_the_total_is_their_mean() -> None:
    bench = held()
    found = bench.measure(Exact(SCHEDULE, TARGETS["epsilon"], 0.0, VARIANCE))
    log_snr = SCHEDULE.log_snr(bench.t).flatten()
    total = 0.0
    for low in range(-20, 20, 2):
        share = ((log_snr >= low) & (log_snr < low + 2)).double().mean().item()
        total += share * found.get(f"val/belief_eps/lam_{low}_{low + 2}", 0.0 if share == 0 else math.nan)
    assert total == pytest.approx(found["val/belief_eps"])


KNOWN = Mixture(DATA.weights, DATA.means, DATA.covariances)


class Off(torch.nn.Module):
    """The optimum in eps, plus one number everywhere."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.best, self.by = KNOWN.denoiser(SCHEDULE, TARGETS["epsilon"]).network, by

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.best(x, t) + self.by


@pytest.mark.parametrize("target", ["epsilon", "x0", "v", "scaled_noise"])
def test_the_optimum_has_no_excess(target: str) -> None:
    bench = held(target, known=KNOWN)
    found = bench.measure(KNOWN.denoiser(SCHEDULE, TARGETS[target]))
    excess = {key: value for key, value in found.items() if "excess" in key}
    assert len(excess) > 40
    for key, value in excess.items():
        assert value <= 1e-8 * bench.optimum[key.replace("excess", "belief")], key


def test_excess_is_the_squared_distance_from_the_optimum_without_the_scatter_of_noise() -> None:
    bench = held(known=KNOWN)
    found = bench.measure(Denoiser(Off(0.3), SCHEDULE, TARGETS["epsilon"]))
    assert found["val/excess_eps"] == pytest.approx(0.09, rel=1e-5)
    assert found["val/excess_eps/lam_2_4"] == pytest.approx(0.09, rel=1e-5)
    gap = found["val/belief_eps"] - bench.optimum["val/belief_eps"]
    assert gap == pytest.approx(0.09, abs=0.02), "the same in expectation"
    assert gap != pytest.approx(0.09, rel=1e-5)


def test_what_the_optimum_measures_is_what_bayes_says() -> None:
    lam = SCHEDULE.log_snr((torch.arange(1000.0).reshape(-1, 1, 1, 1) + 1) / 1000)
    bayes = KNOWN.bayes_eps(lam)[0] / 16
    assert held(known=KNOWN).optimum["val/belief_eps"] == pytest.approx(bayes.mean().item(), rel=0.03)


def test_bits_per_dim_of_the_optimum_are_the_expected_ones() -> None:
    bench = held(known=KNOWN, bound="beta")
    exact = expected_vlb(SCHEDULE, lambda lam: KNOWN.bayes_eps(lam)[0] / 16, VARIANCE, 1000, "beta").bits_per_dim.item()
    assert bench.optimum["val/bits_per_dim"] == pytest.approx(exact, abs=0.12), "3 standard errors"
    found = bench.measure(KNOWN.denoiser(SCHEDULE, TARGETS["x0"]))
    assert found["val/bits_per_dim"] == pytest.approx(bench.optimum["val/bits_per_dim"], abs=1e-6)


def test_there_are_no_bits_where_there_is_no_bound() -> None:
    rectified, times = SCHEDULES["rectified"], Uniform()
    bench = held(schedule=rectified, times=times, bound="beta")
    assert "val/bits_per_dim" not in bench.measure(Denoiser(Silent(), rectified, TARGETS["epsilon"]))
    assert "val/bits_per_dim" in bench.measure(Denoiser(Silent(), rectified, TARGETS["v"]))
    assert "val/bits_per_dim" not in held().measure(Denoiser(Silent(), SCHEDULE, TARGETS["v"]))
