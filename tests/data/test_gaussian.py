import math

import pytest

from diffexp.data.gaussian import SmoothGaussian


def test_pixels_covary_by_their_distance() -> None:
    data = SmoothGaussian(side=4, std=0.3, length=1.5).load()
    covariance = data.covariances[0]
    assert float(covariance[5, 5]) == pytest.approx(0.09, rel=1e-12)
    # Pixels 0 = (0, 0) and 6 = (1, 2).
    assert float(covariance[0, 6]) == pytest.approx(0.09 * math.exp(-math.sqrt(5) / 1.5), rel=1e-12)
    assert data.std == pytest.approx(0.3, rel=1e-12)
    assert data.reference("heldout").double().std() == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("name", ["side", "std", "length"])
def test_numbers_that_are_not_positive_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.{name}=-1(\.0)? must be positive: take"):
        SmoothGaussian(**{name: -1 if name == "side" else -1.0}).load()
