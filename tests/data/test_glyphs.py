import json
from pathlib import Path

import numpy as np
import pytest

from diffexp.data.glyphs import Digits8

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "digits8.json").read_text())


def test_means_and_covariances_are_those_of_the_reference() -> None:
    data = Digits8().load()
    covariances = data.covariances.numpy()
    probe = np.cos(0.7 * np.arange(64))
    assert np.allclose(data.weights, 0.1, rtol=0, atol=1e-15)
    assert data.means.shape == (10, 1, 8, 8)
    np.testing.assert_allclose(data.means.numpy().reshape(10, 64), REFERENCE["means"], rtol=0, atol=1e-14)
    np.testing.assert_allclose(covariances @ probe, REFERENCE["covariance_probe"], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(np.trace(covariances, axis1=1, axis2=2), REFERENCE["trace"], rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(covariances, axis=(1, 2)), REFERENCE["frobenius"], rtol=1e-12)


def test_the_variance_of_a_pixel_is_as_the_docstring_says() -> None:
    data = Digits8().load()
    assert data.std == pytest.approx(REFERENCE["std"], rel=1e-12)
    images = data.reference("train", 20_000).double().numpy()
    assert images.var(axis=0).mean() == pytest.approx(0.2147, rel=0.01)
    within = data.covariances.numpy().diagonal(axis1=1, axis2=2).mean()
    assert within == pytest.approx(0.0576, abs=5e-5)


def test_without_pixel_noise_each_class_has_five_directions() -> None:
    data = Digits8(tau=0.0).load()
    assert [np.linalg.matrix_rank(c, tol=1e-9) for c in data.covariances.numpy()] == [5] * 10


def test_a_negative_tau_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.tau=-1\.0 .*take 0\.05"):
        Digits8(tau=-1.0).load()
