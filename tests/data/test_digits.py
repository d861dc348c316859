import numpy as np
import torch
from sklearn.datasets import load_digits

from diffexp.data.digits import Digits


def test_ink_counts_become_8_bits_by_rounding_once() -> None:
    data = Digits().load()
    every = torch.cat([data.train, data.heldout_images])
    ink = np.round(every.numpy() * (16 / 255))
    assert np.abs(every.numpy() - ink * 255 / 16).max() <= 0.5
    assert len(np.unique(every)) == 17
    assert {x.tobytes() for x in ink[:, 0]} == {x.tobytes() for x in load_digits().images.astype(ink.dtype)}


def test_a_fixed_fifth_is_held_out_with_every_digit_in_it() -> None:
    data = Digits().load()
    assert (data.size("train"), data.size("heldout"), data.classes) == (1438, 359, 10)
    labels = data.labels("heldout", 200)
    assert labels is not None
    assert torch.bincount(labels, minlength=10).min() >= 10
    assert data.fingerprint() == Digits().load().fingerprint()
    assert not data.flip
