import torch

from diffexp.data.pixels import to_float, to_uint8

EVERY = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


def test_every_8_bit_value_survives_the_way_to_float_and_back() -> None:
    assert torch.equal(to_uint8(to_float(EVERY)), EVERY)


def test_the_scale_is_minus_one_to_one_with_both_ends_exact() -> None:
    values = to_float(EVERY).flatten()
    assert values.dtype == torch.float32
    assert (values[0], values[255]) == (-1.0, 1.0)
    step = values.double().diff()
    torch.testing.assert_close(step, torch.full_like(step, 1 / 127.5), rtol=0, atol=2e-7)


def test_pixels_are_rounded_not_cut_off_and_values_outside_are_clamped() -> None:
    images = torch.tensor([-1.5, -1 + 1.6 / 127.5, 1 - 0.4 / 127.5, 1.5]).reshape(1, 1, 2, 2)
    assert to_uint8(images).flatten().tolist() == [0, 2, 255, 255]
