"""Pictures to network inputs: each step of the policy, and each way a picture can be wrong."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from binarynet.data import images
from binarynet.data.images import ImagePolicy, is_grey_picture, picture_size, read_image
from binarynet.errors import DataError

GREY = ImagePolicy(4, 6, 1)
RGB = ImagePolicy(4, 6, 3)


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def random_pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".jpeg", ""])
def test_grey_png_is_read_as_it_is(tmp_path, suffix):
    pixels = random_pixels(4, 6)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(save(tmp_path / "x.png", pixels).read_bytes())
    result = read_image(path, GREY)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert result.flags.writeable
    np.testing.assert_array_equal(result, pixels[..., None])


def test_rgb_png_is_read_as_it_is(tmp_path):
    pixels = random_pixels(4, 6, 3)
    np.testing.assert_array_equal(read_image(save(tmp_path / "x.png", pixels), RGB), pixels)


def test_jpeg_is_read(tmp_path):
    path = save(tmp_path / "x.jpg", np.full((4, 6, 3), 200, np.uint8), quality=95)
    assert abs(read_image(path, RGB).astype(int) - 200).max() <= 2


def test_colour_to_grey_is_the_luma_formula(tmp_path):
    pixels = random_pixels(4, 6, 3).astype(np.int64)
    luma = (pixels @ [19595, 38470, 7471] + 0x8000) >> 16
    result = read_image(save(tmp_path / "x.png", pixels.astype(np.uint8)), GREY)
    np.testing.assert_array_equal(result[..., 0], luma)


def test_grey_to_rgb_repeats_the_channel(tmp_path):
    pixels = random_pixels(4, 6)
    result = read_image(save(tmp_path / "x.png", pixels), RGB)
    np.testing.assert_array_equal(result, np.repeat(pixels[..., None], 3, axis=2))


def test_one_bit_png(tmp_path):
    bits = random_pixels(4, 6) > 127
    Image.fromarray(bits).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png", GREY)[..., 0], bits * np.uint8(255))


def test_palette_png(tmp_path):
    picture = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) % 2).convert("P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "x.png")
    result = read_image(tmp_path / "x.png", RGB)
    assert result[0, 0].tolist() == [10, 20, 30]
    assert result[0, 1].tolist() == [200, 100, 50]


def test_16_bit_grey_keeps_the_high_byte(tmp_path):
    pixels = np.random.default_rng(7).integers(0, 1 << 16, (4, 6), dtype=np.uint16)
    path = save(tmp_path / "x.png", pixels)
    assert is_grey_picture(path)
    np.testing.assert_array_equal(read_image(path, GREY)[..., 0], pixels >> 8)


@pytest.mark.parametrize("background", [0, 90, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pixels_show_the_background(tmp_path, background, channels):
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[..., 0] = 255  # invisible red
    pixels[0, 0] = (40, 40, 40, 255)
    policy = ImagePolicy(4, 6, channels, background=background)
    result = read_image(save(tmp_path / "x.png", pixels), policy)
    assert set(result[0, 0]) == {40}
    assert set(result[1:].ravel().tolist()) == {background}


def test_transparent_colour_of_a_grey_png_shows_the_background(tmp_path):
    pixels = np.full((4, 6), 7, np.uint8)
    pixels[0] = 99
    path = save(tmp_path / "x.png", pixels, transparency=7)
    result = read_image(path, ImagePolicy(4, 6, 1, background=255))[..., 0]
    assert set(result[0]) == {99}
    assert set(result[1:].ravel().tolist()) == {255}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_exif_orientation_is_honoured(tmp_path, suffix):
    pixels = np.zeros((6, 4), np.uint8)
    pixels[:3] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    options = {"quality": 100} if suffix == ".jpg" else {}
    path = save(tmp_path / f"x{suffix}", pixels, exif=exif, **options)
    assert picture_size(path) == (4, 6)
    result = read_image(path, GREY)[..., 0]
    np.testing.assert_array_equal(result > 127, np.rot90(pixels, -1) > 127)


def test_crop_keeps_the_middle(tmp_path):
    pixels = np.zeros((4, 12), np.uint8)
    pixels[:, 3:9] = 200
    result = read_image(save(tmp_path / "x.png", pixels), GREY)
    assert set(result.ravel().tolist()) == {200}


def test_pad_keeps_everything_and_fills_with_background(tmp_path):
    policy = ImagePolicy(8, 8, 3, resize="pad", background=17)
    result = read_image(save(tmp_path / "x.png", np.full((8, 4), 200, np.uint8)), policy)
    assert set(result[:, 2:6].ravel().tolist()) == {200}
    assert set(result[:, :2].ravel().tolist()) == {17}
    assert set(result[:, 6:].ravel().tolist()) == {17}


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (33, 7), (200, 300)])
def test_every_size_becomes_the_wanted_one(tmp_path, resize, size):
    path = save(tmp_path / "x.png", np.full(size, 50, np.uint8))
    result = read_image(path, ImagePolicy(5, 9, 1, resize=resize, background=50))
    assert result.shape == (5, 9, 1)
    assert set(result.ravel().tolist()) == {50}


def test_refuse_names_both_sizes(tmp_path):
    path = save(tmp_path / "x.png", np.zeros((5, 7), np.uint8))
    with pytest.raises(DataError, match=r"x\.png: 5 x 7 pixels \(height x width\), expected 4 x 6; resize the picture"):
        read_image(path, ImagePolicy(4, 6, 1, resize="refuse"))


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1)])
def test_npy_of_the_right_shape(tmp_path, shape):
    array = random_pixels(*shape)
    np.save(tmp_path / "x.npy", np.asfortranarray(array))
    result = read_image(tmp_path / "x.npy", GREY)
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, array.reshape(4, 6, 1))


@pytest.mark.parametrize("shape", [(5,), (1, 1, 5)])
def test_npy_of_features(tmp_path, shape):
    array = random_pixels(*shape)
    np.save(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(read_image(tmp_path / "x.npy", ImagePolicy(1, 1, 5)), array.reshape(1, 1, 5))


def test_npy_of_another_shape(tmp_path):
    np.save(tmp_path / "x.npy", random_pixels(6, 4))
    with pytest.raises(DataError, match=r"shape \[6, 4\], expected \[4, 6, 1\] or \[4, 6\] \(arrays are taken as"):
        read_image(tmp_path / "x.npy", GREY)


def test_npy_of_wrong_channel_count(tmp_path):
    np.save(tmp_path / "x.npy", random_pixels(4, 6, 2))
    with pytest.raises(DataError, match=r"shape \[4, 6, 2\], expected \[4, 6, 3\]"):
        read_image(tmp_path / "x.npy", RGB)


@pytest.mark.parametrize(("dtype", "hint"), [("float32", "; scale floats to 0..255 and round"), ("int64", "$")])
def test_npy_of_another_dtype(tmp_path, dtype, hint):
    np.save(tmp_path / "x.npy", np.zeros((4, 6), dtype))
    with pytest.raises(DataError, match=rf"holds {dtype}, expected uint8 \(0\.\.255\){hint}"):
        read_image(tmp_path / "x.npy", GREY)


def test_features_network_refuses_pictures(tmp_path):
    path = save(tmp_path / "x.png", random_pixels(4, 6))
    with pytest.raises(DataError, match=r"takes 64 features, which no picture holds; give a \.npy file"):
        read_image(path, ImagePolicy(1, 1, 64))


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"no\.png: no such file"):
        read_image(tmp_path / "no.png", GREY)


def test_folder(tmp_path):
    with pytest.raises(DataError, match="is not a file but a folder"):
        read_image(tmp_path, GREY)


def test_text_file_named_png(tmp_path):
    (tmp_path / "x.png").write_text("hello, I am a text")
    with pytest.raises(
        DataError, match=r"not a PNG or JPEG picture \(it begins with b'hello, I am '\); only PNG, JPEG"
    ):
        read_image(tmp_path / "x.png", GREY)


def test_empty_file(tmp_path):
    (tmp_path / "x.png").touch()
    with pytest.raises(DataError, match=r"not a PNG or JPEG picture \(it is empty\)"):
        read_image(tmp_path / "x.png", GREY)


def test_other_formats_are_refused(tmp_path):
    save(tmp_path / "x.gif", random_pixels(4, 6))
    with pytest.raises(DataError, match="not a PNG or JPEG picture"):
        read_image(tmp_path / "x.gif", GREY)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated_picture(tmp_path, suffix, kept):
    content = save(tmp_path / f"x{suffix}", random_pixels(64, 64, 3)).read_bytes()
    (tmp_path / f"x{suffix}").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=r"x\.\w+: damaged or truncated picture"):
        read_image(tmp_path / f"x{suffix}", RGB)


def test_picture_with_a_damaged_chunk(tmp_path):
    content = bytearray(save(tmp_path / "x.png", random_pixels(64, 64)).read_bytes())
    content[content.index(b"IDAT") + 20] ^= 0xFF
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match="damaged or truncated picture"):
        read_image(tmp_path / "x.png", GREY)


def png_claiming(width: int, height: int) -> bytes:
    """A small valid PNG header that claims a huge picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8193, 12_000, 100_000])
def test_decompression_bomb(tmp_path, side):
    (tmp_path / "x.png").write_bytes(png_claiming(side, side))
    with pytest.raises(DataError, match=r"more than 67,108,864 pixels: refused as a possible decompression bomb"):
        read_image(tmp_path / "x.png", GREY)
    with pytest.raises(DataError, match="decompression bomb"):
        is_grey_picture(tmp_path / "x.png")


def test_every_single_byte_change_is_read_or_refused_cleanly(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(random_pixels(4, 6)).save(buffer, "PNG")
    original = buffer.getvalue()
    refused = 0
    for i in range(len(original)):
        (tmp_path / "x.png").write_bytes(original[:i] + bytes([original[i] ^ 0x55]) + original[i + 1 :])
        try:
            assert read_image(tmp_path / "x.png", GREY).shape == (4, 6, 1)
        except DataError:
            refused += 1
    assert refused > len(original) // 2


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pictures_may_be_refused(tmp_path, channels):
    policy = ImagePolicy(2, 2, channels, background=None)
    picture = Image.new("RGBA", (2, 2), (9, 9, 9, 255))
    picture.save(tmp_path / "x.png")
    assert set(read_image(tmp_path / "x.png", policy).ravel().tolist()) == {9}
    picture.putpixel((1, 0), (9, 9, 9, 254))
    picture.save(tmp_path / "x.png")
    with pytest.raises(images.TransparentPictureError, match=r"x\.png: has transparent pixels; lay them over"):
        read_image(tmp_path / "x.png", policy)
    assert ImagePolicy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy


def test_policy_with_a_key_that_is_no_text():
    with pytest.raises(DataError, match="expected the keys"):
        ImagePolicy.from_dict({**ImagePolicy(28, 28, 1).to_dict(), 1: 2})


def test_policy_survives_json():
    policy = ImagePolicy(28, 20, 3, resize="stretch", background=9)
    assert ImagePolicy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    assert policy.shape == (28, 20, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, "at least 1"),
        ({"channels": -1}, "at least 1"),
        ({"height": 1 << 20, "width": 1 << 20}, "at most 67,108,864 values"),
        ({"height": "28"}, "height must be an integer, got '28'"),
        ({"width": 28.0}, "width must be an integer, got 28.0"),
        ({"channels": True}, "channels must be an integer, got True"),
        ({"resize": "zoom"}, "resize must be one of crop, pad, stretch, refuse, got 'zoom'"),
        ({"resize": ["crop"]}, "resize must be one of"),
        ({"resize": "pad", "background": None}, "resize by pad needs a background of 0..255, got None"),
        ({"height": None}, "height must be an integer, got None"),
        ({"background": 256}, "background must be 0..255, got 256"),
        ({"colour": 1}, "expected the keys"),
    ],
)
def test_wrong_policy(change, message):
    with pytest.raises(DataError, match=message):
        ImagePolicy.from_dict({**ImagePolicy(28, 28, 1).to_dict(), **change})


def test_policy_with_a_missing_key():
    values = ImagePolicy(28, 28, 1).to_dict()
    del values["resize"]
    with pytest.raises(DataError, match="expected the keys"):
        ImagePolicy.from_dict(values)


def test_limits_are_what_the_messages_say():
    assert images.MAX_IMAGE_PIXELS == 67_108_864
