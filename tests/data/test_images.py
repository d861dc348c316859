import numpy as np
import pytest
import torch
from torch import Tensor

from diffexp.data.images import ImageData, fixed_order
from diffexp.draws import Draws


def coded(count: int, first: int = 0, side: int = 4) -> Tensor:
    """Images that differ from each other and from their own mirror image."""
    generator = torch.Generator().manual_seed(first)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def data(flip: bool = False, train: Tensor | None = None) -> ImageData:
    labels, labels_heldout = torch.arange(40) % 3, torch.arange(12) % 3
    return ImageData("toy", coded(40) if train is None else train, coded(12, first=1), labels, labels_heldout, flip)


def as_float(pixels: Tensor) -> Tensor:
    return (pixels.double() / 127.5 - 1).float()


def which(images: Tensor, among: Tensor) -> list[int]:
    """Index of each image in `among`, -1 if it is not there."""
    same = (images[:, None] == among[None]).flatten(2).all(2)
    return [int(row.nonzero()[0]) if row.any() else -1 for row in same]


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    first, again = data(flip=True), data(flip=True)
    first.batch(Draws(3), 0, 8)
    assert torch.equal(first.batch(Draws(3), 7, 8), again.batch(Draws(3), 7, 8))
    assert not torch.equal(first.batch(Draws(3), 7, 8), first.batch(Draws(3), 8, 8))
    assert not torch.equal(first.batch(Draws(3), 7, 8), first.batch(Draws(4), 7, 8))


def test_without_flips_an_epoch_shows_every_training_image_once_as_it_is() -> None:
    toy, draws = data(), Draws(0)
    seen = torch.cat([toy.batch(draws, step, 8) for step in range(5)])
    assert seen.dtype == torch.float32
    assert sorted(which(seen, toy.train.float() / 127.5 - 1)) == list(range(40))


def test_a_batch_larger_than_the_set_shows_images_again() -> None:
    toy = data()
    counts = np.bincount(which(toy.batch(Draws(0), 0, 100), toy.train.float() / 127.5 - 1), minlength=40)
    assert counts.sum() == 100
    assert counts.min() >= 2


def test_half_of_the_images_are_mirrored_left_to_right_and_the_choice_of_images_is_left_alone() -> None:
    plain, flipping, draws = data(), data(flip=True), Draws(1)
    flipped = 0
    for step in range(100):
        straight, drawn = plain.batch(draws, step, 40), flipping.batch(draws, step, 40)
        mirrored = (drawn == straight.flip(-1)).flatten(1).all(1)
        assert bool((mirrored | (drawn == straight).flatten(1).all(1)).all())
        flipped += int(mirrored.sum())
    assert abs(flipped - 2000) < 4 * np.sqrt(4000 / 4)


def test_flips_do_not_reach_the_heldout_or_the_reference_images() -> None:
    plain, flipping = data(), data(flip=True)
    assert torch.equal(plain.heldout(12), flipping.heldout(12))
    assert torch.equal(plain.reference("train"), flipping.reference("train"))


def test_the_heldout_images_are_the_reference_ones_and_start_again_when_they_run_out() -> None:
    toy = data()
    reference = toy.reference("heldout")
    assert reference.dtype == torch.uint8
    assert sorted(which(reference, toy.heldout_images)) == list(range(12))
    torch.testing.assert_close(toy.heldout(5), as_float(reference[:5]), rtol=0, atol=1e-7)
    again = as_float(reference[torch.arange(30) % 12])
    torch.testing.assert_close(toy.heldout(30), again, rtol=0, atol=1e-7)


def test_labels_belong_to_the_reference_images_in_their_order() -> None:
    toy = data()
    for split, images, labels in (
        ("train", toy.train, toy.train_labels),
        ("heldout", toy.heldout_images, toy.heldout_labels),
    ):
        given, count = toy.labels(split, 10), 10
        assert labels is not None
        assert given is not None
        assert given.tolist() == labels[which(toy.reference(split, count), images)].tolist()


def test_a_small_reference_is_the_start_of_a_large_one_and_is_not_sorted_as_the_file_was() -> None:
    toy = data()
    assert torch.equal(toy.reference("train", 1000), toy.reference("train"))
    assert torch.equal(toy.reference("train", 7), toy.reference("train")[:7])
    assert toy.size("train") == 40
    order = which(toy.reference("train"), toy.train)
    assert order != sorted(order)


def test_std_is_that_of_all_training_pixels_about_their_one_mean() -> None:
    toy = data()
    values = toy.train.double().numpy() / 127.5 - 1
    assert toy.std == pytest.approx(values.std(), rel=1e-12)
    assert toy.classes == 3


def test_the_fingerprint_sees_content_shape_split_labels_and_flip() -> None:
    toy = data()
    assert data().fingerprint() == toy.fingerprint()
    changed = toy.train.clone()
    changed[3, 1, 2, 2] ^= 1
    labels, heldout = torch.arange(40) % 3, torch.arange(12) % 3
    others = [
        data(train=changed),
        data(train=toy.train.reshape(40, 3, 2, 8).reshape(40, 3, 4, 4).transpose(2, 3)),
        data(flip=True),
        ImageData("toy", toy.train, toy.heldout_images),
        ImageData("toy", toy.train, toy.heldout_images, labels.roll(1), heldout),
        ImageData("toy", toy.heldout_images, toy.train, heldout, labels),
        ImageData("toy", toy.train.reshape(40, 3, 2, 8), toy.heldout_images.reshape(12, 3, 2, 8), labels, heldout),
    ]
    prints = {other.fingerprint() for other in others}
    assert len(prints | {toy.fingerprint()}) == len(others) + 1


def test_the_fixed_order_is_the_one_that_earlier_results_used() -> None:
    assert fixed_order(10).tolist() == [1, 8, 3, 5, 6, 9, 7, 2, 4, 0]
    assert sorted(fixed_order(1797).tolist()) == list(range(1797))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_the_gpu_the_same_images_come_without_waiting_for_it() -> None:
    toy = data(flip=True)
    moved = toy.to("cuda")
    assert moved.fingerprint() == toy.fingerprint()
    assert torch.equal(moved.heldout(30).cpu(), toy.heldout(30))
    assert torch.equal(moved.batch(Draws(0), 3, 8).cpu(), toy.batch(Draws(0), 3, 8))
    draws = Draws(0, "cuda")
    moved.batch(draws, 0, 8)
    torch.cuda.set_sync_debug_mode("error")
    try:
        moved.batch(draws, 1, 8)
    finally:
        torch.cuda.set_sync_debug_mode("default")
