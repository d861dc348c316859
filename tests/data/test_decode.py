from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from diffexp.data.decode import decode, stack

GREY = np.random.default_rng(0).integers(0, 256, (6, 5), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def reopened(picture: Image.Image, kind: str = "PNG", **options: object) -> Image.Image:
    file = BytesIO()
    picture.save(file, kind, **options)
    return Image.open(BytesIO(file.getvalue()))


def with_alpha(values: np.ndarray, alpha: int) -> Image.Image:
    colours = values if values.ndim == 3 else values[..., None]
    opacity = np.full((*values.shape[:2], 1), alpha, np.uint8)
    return Image.fromarray(np.concatenate([colours, opacity], axis=2))


def test_grey_and_colour_come_back_as_they_were_saved() -> None:
    assert np.array_equal(decode(reopened(Image.fromarray(GREY)), "a.png"), GREY)
    assert np.array_equal(decode(reopened(Image.fromarray(COLOUR)), "a.png"), COLOUR)


def test_black_and_white_becomes_grey_of_both_ends() -> None:
    picture = reopened(Image.fromarray(GREY > 127))
    assert picture.mode == "1"
    assert np.array_equal(decode(picture, "a.png"), np.where(GREY > 127, 255, 0))


def test_a_palette_becomes_the_colours_it_names() -> None:
    few = COLOUR // 128 * 255
    picture = reopened(Image.fromarray(few).quantize(8, dither=Image.Dither.NONE))
    assert picture.mode == "P"
    assert np.array_equal(decode(picture, "a.png"), few)


def test_an_opaque_alpha_channel_is_dropped() -> None:
    assert np.array_equal(decode(reopened(with_alpha(COLOUR, 255)), "a.png"), COLOUR)
    assert np.array_equal(decode(reopened(with_alpha(GREY, 255)), "a.png"), GREY)


@pytest.mark.parametrize("values", [GREY, COLOUR], ids=["LA", "RGBA"])
def test_transparent_pixels_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a\.png has transparent pixels.*Flatten"):
        decode(reopened(with_alpha(values, 254)), "a.png")


def test_a_transparent_palette_colour_is_refused() -> None:
    picture = Image.fromarray(COLOUR).quantize(8)
    with pytest.raises(ValueError, match="transparent"):
        decode(reopened(picture, transparency=int(np.asarray(picture)[0, 0])), "a.png")


def test_more_than_8_bits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.png has 16 bits"):
        decode(reopened(Image.fromarray(GREY.astype(np.uint16) * 257)), "a.png")
    with pytest.raises(ValueError, match=r"a\.tif has 16 bits"):
        decode(reopened(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "a.tif")


def test_16_bit_colour_that_pillow_would_cut_to_8_is_refused() -> None:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(range(12))) * 2)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    picture = Image.open(BytesIO(png))
    assert picture.mode == "RGB"
    with pytest.raises(ValueError, match="16 bits"):
        decode(picture, "a.png")


def test_several_frames_and_print_colours_are_refused() -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    with pytest.raises(ValueError, match="several frames"):
        decode(reopened(frames[0], "GIF", save_all=True, append_images=frames[1:]), "a.gif")
    with pytest.raises(ValueError, match="colour mode CMYK"):
        decode(reopened(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"), "a.jpg")


def test_grey_among_colour_becomes_three_equal_channels() -> None:
    stacked = stack([("a", GREY), ("b", COLOUR)])
    assert np.array_equal(stacked[0], np.repeat(GREY[..., None], 3, axis=2))
    assert np.array_equal(stacked[1], COLOUR)
    assert stack([("a", GREY), ("b", GREY)]).shape == (2, 6, 5)


def test_two_sizes_are_refused_by_the_names_of_two_pictures() -> None:
    with pytest.raises(ValueError, match=r"a\.png is 5x6 pixels but c\.png is 4x6"):
        stack([("a.png", GREY), ("b.png", GREY), ("c.png", GREY[:, 1:])])
