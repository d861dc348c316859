"""One test for each defect that was seen in another project's comparison of prediction targets.

Each is put so that it fails if the defect is made here. The full treatment is in the module's own tests.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from catalogue import SCHEDULES, TARGETS, WITH_LABEL_NOISE, images, per_image, times_on
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig
from probes import Posterior
from torch import Tensor, nn

from diffexp.cli.config import conf_dir
from diffexp.cli.main import main
from diffexp.data import ImageData
from diffexp.data.digits import Digits
from diffexp.denoiser import Denoiser
from diffexp.likelihood.bound import expected_vlb
from diffexp.metrics import distance
from diffexp.metrics.features import Features
from diffexp.metrics.reference import reference
from diffexp.objective import Objective
from diffexp.samplers import Ddim, DpmSolverPP2M, Heun, Sampler
from diffexp.schedule import LinearBeta, Schedule
from diffexp.targets import X0, Score, Target
from diffexp.training.checkpoints import read_checkpoint
from diffexp.training.validation import HeldOut
from diffexp.weighting import TruncatedSnr

DDPM = LinearBeta()


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", list(overrides))


class Constant(nn.Module):
    """A network that has the clean images, and so the noise in x_t: it is exact."""

    def __init__(self, schedule: Schedule, target: Target, x0: Tensor) -> None:
        super().__init__()
        self.schedule, self.target, self.x0 = schedule, target, x0

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        a, b, _ = self.target.coefficients(self.schedule, t)
        return a * self.x0 + b * (x_t - self.schedule.alpha(t) * self.x0) / self.schedule.sigma(t)


def test_a_time_for_each_image_is_not_broadcast_along_the_width() -> None:
    """Batch and width are equal here. In a process of its own, where no test-time shape checker raises first."""
    program = (
        "import torch; from diffexp.schedule import LinearBeta; from diffexp.targets import X0\n"
        "x, t = torch.zeros(4, 1, 4, 4), torch.full((4,), 0.5)\n"
        "for call in (lambda: LinearBeta().noised(t, x, x), lambda: X0().draw(LinearBeta(), t, x, x, x)):\n"
        "    try: call()\n"
        "    except ValueError as error: print('raised' if '(batch, 1, 1, 1)' in str(error) else error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["raised", "raised"], done.stderr


def test_x0_is_regressed_against_the_clean_image_and_not_against_a_noisy_one() -> None:
    t = times_on(DDPM)
    x0, eps, xi = (images(seed, t) for seed in range(3))
    assert Objective(X0()).of_prediction(x0, DDPM, x0, t, eps, xi).max() == 0


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in (*WITH_LABEL_NOISE, "flow")])
def test_the_noise_in_x_t_is_the_noise_in_the_loss(name: str) -> None:
    """Image by image: x0 and x_t determine eps, so the loss is 0."""
    t = times_on(DDPM)
    x0, eps, xi = (images(seed, t) for seed in range(3))
    denoiser = Denoiser(Constant(DDPM, TARGETS[name], x0), DDPM, TARGETS[name])
    loss = Objective(TARGETS[name])(denoiser, x0, t, eps, xi)
    zero = Objective(TARGETS[name]).of_prediction(torch.zeros_like(x0), DDPM, x0, t, eps, xi)
    assert (loss / zero).max() < 1e-18


def test_the_truncated_snr_is_the_larger_of_snr_and_one() -> None:
    t = per_image([0.25, 0.75])  # SNR 9 and 1/9 on the straight line
    assert TruncatedSnr()(SCHEDULES["rectified"], t).flatten().tolist() == pytest.approx([9, 1])


def test_the_bound_weighs_x0_by_half_the_fall_of_the_snr_from_its_second_step_on() -> None:
    """Elsewhere sqrt(abar) / (2 - abar) / 2 instead, which is 5454 times too little at index 1."""

    bound = expected_vlb(DDPM, lambda log_snr: log_snr.exp() / 100, 0.0, 1000, "beta_tilde")  # x0 off by 0.1
    snr = DDPM.log_snr(per_image(torch.arange(1, 1001) / 1000)).exp().flatten()
    weight = bound.kl / 0.1**2
    assert weight.tolist() == pytest.approx(((snr[:-1] - snr[1:]) / 2).tolist(), rel=1e-9)
    assert weight[0] == pytest.approx(2726.4, rel=1e-4)


def test_a_weighting_is_chosen_by_its_whole_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["uniform", "snr", "truncated_snr", "snr_plus_one", "min_snr", "p2", "sigmoid", "edm", "vlb"]
    for name in names:
        chosen = get_object(composed(f"weighting={name}").weighting._target_)
        assert chosen.__name__.lower() == name.replace("_", "")
    for override, message in (
        ("weighting=snr_plus", "snr_plus in weighting"),
        ("objective.space=step", "there is no step"),
    ):
        assert main(["train", f"root={tmp_path}", "metric=none", "logger=none", override]) == 2
        assert message in capsys.readouterr().err


class Halves(Features):
    """The mean of an image's left half and of its right half."""

    def __init__(self) -> None:
        super().__init__("halves", "fd", 2, "")

    def _extract(self, images: Tensor) -> Tensor:
        return torch.stack([images[..., :4].double().mean((1, 2, 3)), images[..., 4:].double().mean((1, 2, 3))], dim=1)


def test_reference_statistics_are_those_of_images_that_nobody_flipped(tmp_path: Path) -> None:
    pixels = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    pixels[..., :4] = 200
    against = reference(Halves(), ImageData("halves", pixels, pixels, flip=True), tmp_path)
    assert (against.moments.total / against.moments.count).tolist() == [200, 0]


def test_the_plain_score_loss_is_computed_in_score_space() -> None:
    """(s_hat + eps / sigma)^2, and not sigma^2 times that, which is the eps loss under another name."""
    t = times_on(DDPM)
    x0, eps, xi = (images(seed, t) for seed in range(3))
    loss = Objective(Score()).of_prediction(torch.zeros_like(x0), DDPM, x0, t, eps, xi)
    assert torch.allclose(loss, (eps / DDPM.sigma(t)).square().mean((1, 2, 3), keepdim=True), rtol=1e-12)


def test_every_target_is_trained_and_validated_at_the_same_times() -> None:
    data = Digits().load()
    seen: set[tuple[Any, ...]] = set()
    for name in TARGETS:
        cfg = composed(f"target={name}", "schedule=rectified")
        times, path, target = instantiate(cfg.times), instantiate(cfg.schedule), instantiate(cfg.target)
        held = HeldOut(data, Objective(target), path, times, 16, 16)
        drawn = times(path, torch.linspace(0, 0.99, 7))
        seen.add((times.range(path), *drawn.flatten().tolist(), *held.t.flatten().tolist(), held.eps.sum().item()))
    assert len(seen) == 1


@pytest.mark.parametrize(("sampler", "order"), [(Ddim(), 1), (Heun(), 2), (DpmSolverPP2M(), 2)], ids=["1", "2", "2m"])
def test_samplers_are_held_to_where_the_flow_goes_and_not_to_what_they_once_gave(sampler: Sampler, order: int) -> None:
    """A number of a wrong sampler, once frozen, protects its error; an order of convergence cannot."""
    schedule = SCHEDULES["cosine_cont"]
    denoiser = Posterior(schedule, *torch.tensor([[0.5], [0.25]]))
    x = schedule.sigma(per_image([0.6])) * torch.linspace(-2, 2, 9).reshape(-1, 1, 1, 1)
    exact = denoiser.flow(x, 0.6, 0.06)

    def error(steps: int) -> Tensor:
        walk = dataclasses.replace(sampler, steps=steps, grid="log_snr", t_start=0.6, t_end=0.06)
        return (walk(denoiser, x) - exact).abs().mean()

    assert torch.log2(error(50) / error(100)).item() == pytest.approx(order, abs=0.1)


def test_a_resumed_run_sees_the_batches_and_the_noise_that_it_would_have_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_default_dtype(torch.float32)
    seen: list[Tensor] = []
    real = Denoiser.predict

    def watched(self: Denoiser, x_t: Tensor, t: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            seen.append(torch.cat([x_t.flatten(), t.float().flatten()]).clone())
        return real(self, x_t, t)

    monkeypatch.setattr(Denoiser, "predict", watched)
    settings = ["metric=none", "logger=none", "training.batch_size=8", "validation.count=8", "validation.bound=null",
                "sampling.grid=1", "sampler.steps=1", "network.widths=[8]", "network.attention=[false]",
                "network.layers=1", "network.groups=4", "trainer.accelerator=cpu"]  # fmt: skip
    for root, steps in (("whole", 4), ("parts", 2), ("parts", 4)):
        assert main(["train", f"root={tmp_path}/{root}", f"trainer.max_steps={steps}", *settings]) == 0
    whole, parts = seen[:4], seen[4:]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(whole, parts, strict=True))
    assert not torch.equal(whole[0], whole[2])


def test_nothing_but_the_target_changes_what_its_squared_error_is_multiplied_by() -> None:
    """With SNR weights by default, runs of x0, v and eps would all optimise the one eps loss."""
    t = times_on(DDPM)
    snr = DDPM.log_snr(t).exp()
    on_eps = {"epsilon": torch.ones_like(t), "x0": 1 / snr, "v": (1 + 1 / snr)}
    for name, wanted in on_eps.items():
        cfg = composed(f"target={name}")
        assert cfg.objective.space == "native"
        objective = Objective(instantiate(cfg.target), None, instantiate(cfg.weighting))
        assert torch.equal(objective.scale(DDPM, t), torch.ones_like(t))
        assert torch.allclose(objective.eps_weight(DDPM, t), wanted, rtol=1e-9)


BEGUN = ("target=v", "schedule=linear_beta", "objective.space=native", "data=digits")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("target=epsilon", "target._target_"),
        ("schedule=cosine", "schedule._target_"),
        ("schedule.steps=500", "schedule.steps"),
        ("objective.space=epsilon", "objective.space"),
        ("weighting=min_snr", "weighting._target_"),
        ("data=cifar10", "data._target_"),
        ("+data.scale=2.0", "data.scale"),
    ],
)
def test_a_checkpoint_goes_on_only_as_what_it_is(tmp_path: Path, other: str, message: str) -> None:
    from diffexp.cli.identity import plain
    from diffexp.training.checkpoints import FORMAT

    file = tmp_path / "last.ckpt"
    torch.save({"diffexp": {"format": FORMAT, "config": plain(composed(*BEGUN))}}, file)
    assert read_checkpoint(file, plain(composed(*BEGUN, "trainer.max_steps=7")))
    with pytest.raises(ValueError, match="another configuration") as raised:
        read_checkpoint(file, plain(composed(*BEGUN, other)))
    assert message in str(raised.value)


def test_a_distance_of_as_many_images_as_features_is_not_one() -> None:
    """Why it is marked unreliable: of one law, 2000 images score near 0, and 64 of 64 dimensions do not."""
    many, few, against = torch.randn(2000, 64), torch.randn(64, 64), distance.moments(torch.randn(20_000, 64))
    assert distance.frechet(against, many) < 3 < 10 < distance.frechet(against, few)
