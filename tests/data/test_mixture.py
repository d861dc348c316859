import numpy as np
import pytest
import torch
from torch import Tensor

from diffexp.data.mixture import MixtureData
from diffexp.draws import Draws

WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
MEANS = torch.tensor([[-1.0, 0.5], [0.3, 0.2], [1.0, -0.7]], dtype=torch.float64).reshape(3, 1, 1, 2)


def covariances() -> Tensor:
    """One full, one degenerate (all its draws on a line), one a point."""
    line = torch.tensor([1.0, 2.0], dtype=torch.float64)
    full = torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=torch.float64)
    return torch.stack([full, 0.01 * torch.outer(line, line), torch.zeros(2, 2, dtype=torch.float64)])


def data() -> MixtureData:
    return MixtureData("toy", WEIGHTS, MEANS, covariances())


def test_each_component_has_its_weight_mean_and_covariance() -> None:
    toy, count = data(), 50_000
    images, labels = toy.reference("train"), toy.labels("train")
    assert images.dtype == torch.float32
    for k in range(3):
        own = images[labels == k].double().flatten(1)
        share = float(WEIGHTS[k])
        assert abs(len(own) / count - share) < 4 * (share * (1 - share) / count) ** 0.5
        # Four standard errors of a mean and (for a Gaussian) of a covariance entry.
        covariance = covariances()[k]
        spread = covariance.diagonal()
        assert bool(((own.mean(0) - MEANS[k].flatten()).abs() <= 4 * (spread / len(own)).sqrt() + 1e-7).all())
        error = ((spread[:, None] * spread + covariance.square()) / len(own)).sqrt()
        assert bool(((torch.cov(own.T) - covariance).abs() <= 4 * error + 1e-7).all())


def test_a_degenerate_component_stays_on_its_line() -> None:
    toy = data()
    images, labels = toy.reference("train", 2000), toy.labels("train", 2000)
    line = images[labels == 1].flatten(1) - MEANS[1].flatten().float()
    torch.testing.assert_close(line[:, 1], 2 * line[:, 0], rtol=0, atol=1e-6)
    torch.testing.assert_close(
        images[labels == 2].flatten(1), MEANS[2].float().flatten().expand(int((labels == 2).sum()), 2)
    )


def test_std_is_exact() -> None:
    images = data().reference("train").double().numpy()
    assert data().std == pytest.approx(images.std(), rel=0.01)
    # By hand for one pixel pair: E x^2 - (E x)^2 over both pixels.
    one = MixtureData("one", torch.ones(1), MEANS[:1], covariances()[:1])
    assert one.std == pytest.approx((0.25 + (1 + 0.25) / 2 - 0.25**2) ** 0.5, rel=1e-12)


def test_a_batch_is_a_function_of_seed_and_step_and_fresh_at_each() -> None:
    first, again = data(), data()
    first.batch(Draws(3), 0, 8)
    assert torch.equal(first.batch(Draws(3), 7, 8), again.batch(Draws(3), 7, 8))
    seen = torch.cat([first.batch(Draws(seed), step, 8) for seed in (3, 4) for step in range(20)])
    own = seen[~(seen == MEANS[2].float()).flatten(1).all(1)]
    assert len(own.unique(dim=0)) == len(own)


def test_fixed_images_are_the_same_for_any_count_and_apart_between_splits() -> None:
    toy = data()
    assert torch.equal(toy.reference("train", 1500), toy.reference("train", 2500)[:1500])
    assert torch.equal(toy.labels("train", 700), toy.labels("train", 1500)[:700])
    assert torch.equal(toy.heldout(300), toy.reference("heldout", 300))
    assert not torch.equal(toy.reference("heldout", 300), toy.reference("train", 300))


def test_the_heldout_set_starts_again_at_its_end() -> None:
    toy = data()
    assert torch.equal(toy.heldout(10_100)[10_000:], toy.heldout(100))
    assert len(toy.reference("heldout", 20_000)) == toy.size("heldout") == 10_000


def test_the_fingerprint_sees_each_parameter() -> None:
    others = [
        MixtureData("toy", WEIGHTS.flip(0), MEANS, covariances()),
        MixtureData("toy", WEIGHTS, MEANS + 1e-9, covariances()),
        MixtureData("toy", WEIGHTS, MEANS, covariances() * (1 + 1e-9)),
        MixtureData("toy", WEIGHTS, MEANS.reshape(3, 1, 2, 1), covariances()),
        data(),
    ]
    prints = [other.fingerprint() for other in others]
    assert len(set(prints)) == 5
    assert prints[-1] == data().fingerprint()


def test_parameters_of_no_mixture_are_refused() -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        MixtureData("toy", WEIGHTS, MEANS.expand(3, 1, 2, 2), covariances())
    with pytest.raises(ValueError, match="are not probabilities"):
        MixtureData("toy", WEIGHTS * 2, MEANS, covariances())
    with pytest.raises(ValueError, match="covariance 2 is not symmetric with eigenvalues >= 0"):
        MixtureData(
            "toy",
            WEIGHTS,
            MEANS,
            covariances() - 0.01 * torch.eye(2) * (torch.arange(3) == 2).reshape(3, 1, 1),
        )
    skew = covariances()
    skew[0, 0, 1] += 0.01
    with pytest.raises(ValueError, match="covariance 0 is not symmetric"):
        MixtureData("toy", WEIGHTS, MEANS, skew)


def test_a_component_of_weight_zero_is_never_drawn() -> None:
    toy = MixtureData("toy", torch.tensor([0.0, 1.0, 0.0]), MEANS, covariances())
    assert np.unique(toy.labels("train", 5000)).tolist() == [1]
