"""Random streams are functions of (seed, step, purpose) and of nothing else."""

import inspect

import pytest
import torch

from diffexp.draws import Draws, stream_key

SHAPE = (3, 1, 2, 2)


def test_the_same_seed_step_and_purpose_give_the_same_numbers_in_any_order() -> None:
    one, other = Draws(3), Draws(3)
    first = [one.normal(SHAPE, step, "noise") for step in range(4)]
    one.uniform(1000, 2, "times")
    torch.manual_seed(99)
    for step in (3, 0, 2, 1):
        assert torch.equal(other.normal(SHAPE, step, "noise"), first[step])
        assert torch.equal(one.normal(SHAPE, step, "noise"), first[step])
    assert torch.equal(one.uniform(7, 5, "times"), other.uniform(7, 5, "times"))


def test_the_numbers_of_today_are_those_of_tomorrow() -> None:
    """A run resumed by a later version continues; these were written down once (Philox of blake2b)."""
    assert stream_key(0, 0, "noise") == 0x2F8142A74639B581C5936B11BD5B8659
    assert Draws(0).uniform(2, 0, "times").tolist() == [0.4887421896251487, 0.06841526250011631]
    assert Draws(0).choose(3, 1000, 0).tolist() == [643, 224, 875]


def test_seeds_steps_and_purposes_are_independent() -> None:
    streams = [Draws(0).normal((1, 1, 200, 200), 0, "noise"), Draws(1).normal((1, 1, 200, 200), 0, "noise")]
    streams += [Draws(0).normal((1, 1, 200, 200), 1, "noise"), Draws(0).normal((1, 1, 200, 200), 0, "xi")]
    correlation = torch.corrcoef(torch.stack([stream.flatten() for stream in streams]))
    assert (correlation - torch.eye(4)).abs().max() < 5 / 200  # five standard errors


def test_drawing_label_noise_leaves_the_other_streams_alone() -> None:
    plain, other = Draws(0), Draws(0)
    for step in range(3):
        other.normal(SHAPE, step, "xi")
        assert torch.equal(other.normal(SHAPE, step, "noise"), plain.normal(SHAPE, step, "noise"))
        assert torch.equal(other.uniform(4, step, "times"), plain.uniform(4, step, "times"))
        assert torch.equal(other.choose(4, 10, step), plain.choose(4, 10, step))


def test_a_million_streams_do_not_collide() -> None:
    """Whole and as an accelerator's 63 bits; and where 32 bits do collide, first draws still differ."""
    key = inspect.unwrap(stream_key)  # without the tests' type checker, which costs more than the hash
    names = [(seed, step, p) for seed in range(5) for step in range(50_000) for p in "abcd"]
    keys = [key(*name) for name in names]
    assert len({key % 2**63 for key in keys}) == len(keys)
    holders: dict[int, tuple[int, int, str]] = {}
    pairs = [
        (name, other)
        for name, key in zip(names, keys, strict=True)
        if (other := holders.setdefault(key % 2**32, name)) != name
    ]
    assert len(pairs) > 50, "a million 32-bit keys should collide about 116 times"
    first = [Draws(seed).uniform(1, step, purpose) for pair in pairs for seed, step, purpose in pair]
    assert len(torch.cat(first).unique()) == 2 * len(pairs)


def test_concatenation_cannot_confuse_two_streams() -> None:
    keys = {stream_key(1, 23, "x"), stream_key(12, 3, "x"), stream_key(1, 2, "3:x"), stream_key(-1, 23, "x")}
    assert len(keys) == 4


def test_normal_draws_are_normal_and_uniform_ones_uniform() -> None:
    normal = Draws(0).normal((1, 1, 500, 500), 0, "noise", torch.float64)
    assert normal.mean().abs() < 4 / 500
    assert (normal.var() - 1).abs() < 4 * 2**0.5 / 500
    assert (normal.pow(4).mean() - 3).abs() < 4 * 96**0.5 / 500
    uniform = Draws(0).uniform(250_000, 0, "times").sort().values
    assert (uniform - torch.arange(250_000) / 250_000).abs().max() < 2 / 500  # Kolmogorov and Smirnov
    assert uniform.dtype == torch.float64
    assert 0 <= uniform[0] <= uniform[-1] < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_normal_draws_have_the_given_dtype(dtype: torch.dtype) -> None:
    assert Draws(0).normal(SHAPE, 0, "noise", dtype).dtype == dtype


@pytest.mark.parametrize(("batch", "size"), [(4, 10), (10, 10), (7, 3), (1, 5), (25, 10), (128, 1437)])
def test_every_epoch_deals_each_image_once(batch: int, size: int) -> None:
    draws = Draws(0)
    dealt = torch.cat([draws.choose(batch, size, step) for step in range(-(-3 * size // batch))])[: 3 * size]
    for epoch in dealt.reshape(3, size):
        assert torch.equal(epoch.sort().values, torch.arange(size))


def test_each_epoch_has_an_order_of_its_own() -> None:
    orders = [Draws(0).choose(1000, 1000, epoch) for epoch in range(3)] + [Draws(1).choose(1000, 1000, 0)]
    for i, one in enumerate(orders):
        assert all((one == other).sum() < 10 for other in orders[i + 1 :])


def test_a_resumed_run_sees_the_images_it_would_have_seen() -> None:
    straight = Draws(5)
    seen = [straight.choose(7, 20, step) for step in range(12)]
    assert all(torch.equal(Draws(5).choose(7, 20, step), seen[step]) for step in range(6, 12))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_an_accelerators_streams_are_functions_of_their_names_too() -> None:
    draws = Draws(3, "cuda")
    first = [draws.normal(SHAPE, step, "noise") for step in range(4)]
    assert all(torch.equal(Draws(3, "cuda").normal(SHAPE, step, "noise"), first[step]) for step in range(4))
    assert len(torch.stack(first).unique()) == torch.stack(first).numel()
    assert draws.uniform(3, 0, "times").device.type == "cuda"
    assert torch.equal(draws.choose(10, 10, 1).sort().values.cpu(), torch.arange(10))
