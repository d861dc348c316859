import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from diffexp.metrics.distance import frechet, kid, moments


def correlated(count: int, dimension: int, seed: int, shift: float = 0.0) -> Tensor:
    """Features of a known, far from round law, float32 as extractors give them."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(99))
    return (torch.randn(count, dimension, generator=generator) @ mixing + shift).float()


def frechet_by_scipy(a: Tensor, b: Tensor) -> float:
    x, y = a.double().numpy(), b.double().numpy()
    c_x, c_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = sqrtm(c_x @ c_y).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c_x + c_y - 2 * root))


@pytest.mark.parametrize(("n", "m", "dimension"), [(2000, 1000, 64), (300, 500, 8), (12_345, 700, 3)])
def test_the_frechet_distance_agrees_with_scipys_matrix_root(n: int, m: int, dimension: int) -> None:
    real, fake = correlated(n, dimension, 0), 1.1 * correlated(m, dimension, 1, shift=0.3)
    expected = frechet_by_scipy(real, fake)
    assert frechet(moments(real), fake) == pytest.approx(expected, rel=1e-9)


def test_features_far_from_zero_cost_no_digits() -> None:
    # the covariance is a difference of sums: in float32 nothing would be left of it here
    real, fake = correlated(800, 8, 0) + 1000, correlated(800, 8, 1) + 1000
    assert frechet(moments(real), fake) == pytest.approx(frechet_by_scipy(real, fake), rel=1e-6)


def test_a_shift_alone_gives_its_squared_length() -> None:
    real = correlated(500, 16, 0).double()
    shift = torch.linspace(-1, 1, 16, dtype=torch.float64)
    assert frechet(moments(real), real + shift) == pytest.approx(float(shift.square().sum()), rel=1e-9)


def test_a_set_is_at_no_distance_from_itself() -> None:
    real = correlated(500, 16, 0)
    assert frechet(moments(real), real) == pytest.approx(0.0, abs=1e-9)


def kid_by_pairs(a: Tensor, b: Tensor) -> float:
    x, y = a.double().tolist(), b.double().tolist()

    def k(u: list[float], v: list[float]) -> float:
        return (sum(p * q for p, q in zip(u, v, strict=True)) / len(u) + 1) ** 3

    n, m = len(x), len(y)
    within_x = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    across = sum(k(u, v) for u in x for v in y) / (n * m)
    return within_x + within_y - 2 * across


def test_kid_is_the_u_statistic_of_the_cubic_kernel() -> None:
    real, fake = correlated(60, 5, 0), correlated(60, 5, 1, shift=0.2)
    assert kid(real, fake) == pytest.approx(kid_by_pairs(real, fake), rel=1e-9)


def test_kid_on_subsets_of_a_larger_reference_estimates_the_same_number() -> None:
    # E k(x, y) of the law, from many features at once; kid sees 10 subsets of 200
    real, fake = correlated(20_000, 4, 0), correlated(200, 4, 1, shift=1.0)
    x, y = real.double(), fake.double()
    n, m = len(x), len(y)
    within_y = ((y @ y.T / 4 + 1) ** 3).fill_diagonal_(0).sum() / (m * (m - 1))
    within_x = ((x[:5000] @ x[:5000].T / 4 + 1) ** 3).fill_diagonal_(0).sum() / (5000 * 4999)
    across = ((x @ y.T / 4 + 1) ** 3).sum() / (n * m)
    assert kid(real, fake) == pytest.approx(float(within_x + within_y - 2 * across), rel=0.25)


def test_kid_repeats_itself_and_leaves_the_random_state_alone() -> None:
    real, fake = correlated(1500, 4, 0), correlated(1100, 4, 1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = kid(real, fake)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert kid(real, fake) == first
