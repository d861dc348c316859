import re

import numpy as np
import pytest
import torch

from diffexp.data.arrays import Array, Arrays, image_data

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (50, 8, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (50, 8, 6, 3), dtype=np.uint8)
LABELS = np.arange(50) % 5


def refused(message: str, images: Array, labels: Array | None = None, **test: Array) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        image_data("toy", Arrays("data.path=toy.npz", images, labels, **test))
    assert "data.path=toy.npz" in str(caught.value)


@pytest.mark.parametrize(
    "images",
    [GREY, GREY[..., None], GREY[:, None], np.asfortranarray(GREY)],
    ids=["NHW", "NHWC", "NCHW", "F"],
)
def test_grey_images_are_read_alike_from_every_layout(images: Array) -> None:
    assert image_data("toy", Arrays("toy", images)).fingerprint() == image_data("t", Arrays("t", GREY)).fingerprint()


def test_colour_images_keep_their_channels_in_either_layout() -> None:
    last, first = (image_data("toy", Arrays("toy", a)) for a in (COLOUR, COLOUR.transpose(0, 3, 1, 2)))
    assert last.image_shape == (3, 8, 6)
    assert last.fingerprint() == first.fingerprint()
    channel = torch.cat([last.train, last.heldout_images])[:, 1].double().mean()
    assert float(channel) == pytest.approx(COLOUR[..., 1].mean())


def test_without_a_test_split_a_fifth_is_held_out_and_nothing_is_in_both() -> None:
    data = image_data("toy", Arrays("toy", GREY, LABELS))
    assert (data.size("train"), data.size("heldout")) == (40, 10)
    rows = {bytes(x.numpy().tobytes()) for x in torch.cat([data.train, data.heldout_images])}
    assert rows == {x.tobytes() for x in GREY}
    for image, label in zip(data.heldout_images, data.heldout_labels, strict=True):
        where = next(i for i in range(50) if np.array_equal(GREY[i], image[0].numpy()))
        assert LABELS[where] == label


def test_a_test_split_is_what_is_held_out() -> None:
    data = image_data("toy", Arrays("toy", GREY[:30], LABELS[:30], GREY[30:], LABELS[30:]))
    assert np.array_equal(data.heldout_images[:, 0].numpy(), GREY[30:])
    assert np.array_equal(data.train_labels.numpy(), LABELS[:30])


def test_the_tensor_owns_its_memory() -> None:
    images = GREY.copy()
    images.flags.writeable = False
    data = image_data("toy", Arrays("toy", images, images_test=images))
    data.train.zero_()
    assert images.any()


@pytest.mark.parametrize(
    ("images", "why", "what_would"),
    [
        (GREY / 255, "float64, from 0 to 1", "(images * 255.0).round()"),
        ((GREY / 127.5 - 1).astype(np.float32), "float32, from -1 to 1", "((images + 1) * 127.5).round()"),
        (GREY.astype(np.float32), "float32, from 0 to 255", "images.round().astype('uint8')"),
        (GREY.astype(np.int64), "int64, from 0 to 255", "images.round().astype('uint8')"),
        (GREY.astype(np.uint16) * 257, "uint16, from 0 to 65535", "Scale them to 0 to 255"),
        (GREY > 128, "bool, from 0 to 1", "(images * 255.0).round()"),
        (np.full((5, 8, 8), np.nan), "not finite", "find out"),
        (np.full((5, 8, 8), "x"), "not pixel values", "astype('uint8')"),
    ],
)
def test_pixels_of_another_type_are_refused_with_the_line_that_converts_them(
    images: Array, why: str, what_would: str
) -> None:
    refused(re.escape(why), images)
    refused(re.escape(what_would), images)


def test_the_suggested_conversions_are_right() -> None:
    assert np.array_equal((GREY / 255 * 255.0).round().astype("uint8"), GREY)
    assert np.array_equal((((GREY / 127.5 - 1) + 1) * 127.5).round().astype("uint8"), GREY)


def test_shapes_that_are_not_images_are_refused() -> None:
    refused("shape \\(50, 48\\)", GREY.reshape(50, 48))
    refused("nothing in them", GREY[:0])
    refused("nothing in them", GREY[:, :0])
    refused("neither the second nor the last axis", np.zeros((9, 8, 8, 4), np.uint8))
    refused("second or the last axis", np.zeros((9, 3, 8, 3), np.uint8))


def test_too_few_images_to_hold_any_out_are_refused() -> None:
    refused("4 image\\(s\\) are too few", GREY[:4])
    assert image_data("toy", Arrays("toy", GREY[:5])).size("heldout") == 1


def test_labels_that_do_not_fit_are_refused() -> None:
    refused("labels are 49, but there are 50 images", GREY, LABELS[:-1])
    refused("float64, not integers", GREY, LABELS.astype(float))
    refused("shape \\(50, 1\\)", GREY, LABELS[:, None])
    refused("contain -1", GREY, LABELS - 1)
    refused("a label is 1004 among 50", GREY, LABELS + 1000)


def test_test_splits_that_do_not_fit_are_refused() -> None:
    refused("training images are 1x8x6 but test images are 1x8x5", GREY, images_test=GREY[:, :, 1:])
    refused("training images are 1x8x6 but test images are 3x8x6", GREY, images_test=COLOUR)
    refused("test labels but no test images", GREY, LABELS, labels_test=LABELS)
    refused("the training images have labels, the test images have none", GREY, LABELS, images_test=GREY)
    refused("test labels are 49", GREY, LABELS, images_test=GREY, labels_test=LABELS[1:])
    refused("test images are float64", GREY, images_test=GREY / 255)
