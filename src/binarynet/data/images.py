"""How any picture becomes a network's input: PNG, JPEG or npy to uint8 [height, width, channels].

The steps, in this order, so that training and prediction see the same pixels:

1. decode; the first frame of an animation; 16-bit grey keeps its high byte
2. turn upright by the EXIF orientation
3. lay transparent pixels over ``background``
4. to grey (ITU-R 601 luma, Pillow's integer formula) or to RGB
5. resize by the policy's rule with an antialiased bilinear filter
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from binarynet.data._arrays import read_npy_file
from binarynet.data._files import check_is_file
from binarynet.errors import DataError

MAX_IMAGE_PIXELS = 1 << 26
"""A picture that claims more pixels (67 million) is refused before it is decoded."""

MAX_INPUT_VALUES = 1 << 26
"""Largest height * width * channels of a policy."""

Resize = Literal["crop", "pad", "stretch", "refuse"]
RESIZE_RULES: tuple[Resize, ...] = get_args(Resize)
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


class PictureSizeError(DataError):
    """A picture of another size than a policy with ``resize="refuse"`` allows."""


class TransparentPictureError(DataError):
    """A picture with transparent pixels, and a policy with ``background=None``."""


_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"})


@dataclass(frozen=True)
class ImagePolicy:
    """How any picture becomes uint8 ``[height, width, channels]``.

    Attributes:
        height, width: pixels. Feature vectors are 1 x 1.
        channels: 1 is grey, 3 is RGB; other counts (features) are read from .npy only.
        resize: what happens to a picture of another size. ``crop``: scale until it covers, cut the middle out;
            ``pad``: scale until it fits, fill with ``background``; ``stretch``: scale both sides freely;
            ``refuse``: an error.
        background: grey value 0..255 under transparent pixels and around padded pictures; None: a picture with
            transparent pixels is an error (not with ``pad``, which needs a value).
    """

    height: int
    width: int
    channels: int
    resize: Resize = "crop"
    background: int | None = 255

    def __post_init__(self) -> None:
        for field in ("height", "width", "channels", "background"):
            value = getattr(self, field)
            if type(value) is not int and not (field == "background" and value is None):
                raise DataError(f"image policy: {field} must be an integer, got {value!r}")
        if min(self.shape) < 1 or self.height * self.width * self.channels > MAX_INPUT_VALUES:
            raise DataError(
                f"image policy: height, width and channels must be at least 1 and give at most "
                f"{MAX_INPUT_VALUES:,} values, got {list(self.shape)}"
            )
        if self.resize not in RESIZE_RULES:
            raise DataError(f"image policy: resize must be one of {', '.join(RESIZE_RULES)}, got {self.resize!r}")
        if self.background is None:
            if self.resize == "pad":
                raise DataError("image policy: resize by pad needs a background of 0..255, got None")
        elif not 0 <= self.background <= 255:
            raise DataError(f"image policy: background must be 0..255, got {self.background}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels

    def to_dict(self) -> dict[str, int | str | None]:
        """JSON-able form; :meth:`from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImagePolicy:
        """Strict inverse of :meth:`to_dict`: DataError for a missing or unknown key or a wrong value."""
        expected = list(cls.__dataclass_fields__)
        if set(values) != set(expected):
            raise DataError(f"image policy: expected the keys {expected}, got {sorted(map(str, values))}")
        return cls(**values)


def read_image(path: str | PathLike[str], policy: ImagePolicy) -> npt.NDArray[np.uint8]:
    """Read one picture as the network's input.

    Args:
        path: a PNG or JPEG file (by content, not by name), or a ``.npy`` file with a uint8 array of exactly the
            policy's shape; ``[height, width]`` will do for one channel, ``[features]`` for a feature vector.
        policy: the target, see :class:`ImagePolicy`.

    Returns:
        uint8 ``[height, width, channels]``, C-contiguous, writable.

    Raises:
        DataError: missing, damaged, not an image, too large, of a wrong size, dtype or channel count.
    """
    file = Path(path)
    check_is_file(file)
    if file.suffix.lower() == ".npy":
        return _fit_array(read_npy_file(file), policy, file)
    if policy.channels not in (1, 3):
        raise DataError(
            f"{file}: this network takes {_describe(policy)}, which no picture holds; "
            f"give a .npy file (uint8, shape {list(policy.shape)})"
        )
    with _open_picture(file) as picture:
        upright = ImageOps.exif_transpose(picture)
        converted = _convert(upright, policy, file)
        resized = _resize(converted, policy, file)
        pixels = np.array(resized, dtype=np.uint8)
    return pixels.reshape(policy.shape)


def is_grey_picture(path: str | PathLike[str]) -> bool:
    """True if the file's header declares a grey picture (with or without alpha). Errors as :func:`read_image`."""
    file = Path(path)
    check_is_file(file)
    with _open_picture(file, decode=False) as picture:
        return picture.mode in _GREY_MODES


def picture_size(path: str | PathLike[str]) -> tuple[int, int]:
    """(height, width) of a PNG or JPEG once it is upright. Errors as :func:`read_image`."""
    file = Path(path)
    check_is_file(file)
    with _open_picture(file) as picture:
        width, height = ImageOps.exif_transpose(picture).size
    return height, width


@contextmanager
def _open_picture(file: Path, *, decode: bool = True) -> Iterator[Image.Image]:
    """The picture, decoded, with whatever Pillow finds wrong told as one DataError.

    Pillow raises nearly any built-in exception on a damaged file, hence the wide net; its warnings (odd EXIF data,
    sizes near the limit that we check ourselves) are no news to the user.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=("PNG", "JPEG")) as picture:
                width, height = picture.size
                if width * height > MAX_IMAGE_PIXELS:
                    raise Image.DecompressionBombError
                if decode:
                    picture.load()
                yield picture
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{file}: more than {MAX_IMAGE_PIXELS:,} pixels: refused as a possible decompression bomb; "
            f"make the picture smaller"
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{file}: not a PNG or JPEG picture ({_beginning(file)}); only PNG, JPEG and .npy are read"
        ) from error
    except PermissionError as error:
        raise DataError(f"{file}: no permission to read it") from error
    except Exception as error:
        raise DataError(f"{file}: damaged or truncated picture ({_reason(error)})") from error


def _convert(picture: Image.Image, policy: ImagePolicy, file: Path) -> Image.Image:
    if picture.mode.startswith("I"):
        # 16 bits per channel (Pillow already takes the high byte of 16-bit RGB)
        high_byte = (np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        picture = Image.fromarray(high_byte)
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        background = policy.background
        if background is None:
            if np.asarray(layered.getchannel("A")).min() < 255:
                raise TransparentPictureError(f"{file}: has transparent pixels; lay them over a background first")
            background = 0  # shows nowhere
        backdrop = Image.new("RGBA", layered.size, (background,) * 3 + (255,))
        picture = Image.alpha_composite(backdrop, layered).convert("RGB")
    return picture.convert("L" if policy.channels == 1 else "RGB")


def _resize(picture: Image.Image, policy: ImagePolicy, file: Path) -> Image.Image:
    target = (policy.width, policy.height)
    if picture.size == target:
        return picture
    bilinear = Image.Resampling.BILINEAR
    if policy.resize == "stretch":
        return picture.resize(target, bilinear)
    if policy.resize == "crop":
        return ImageOps.fit(picture, target, bilinear)
    if policy.resize == "pad":
        return _pad(picture, policy)
    width, height = picture.size
    raise PictureSizeError(
        f"{file}: {height} x {width} pixels (height x width), expected {policy.height} x {policy.width}; "
        f"resize the picture"
    )


def _pad(picture: Image.Image, policy: ImagePolicy) -> Image.Image:
    assert policy.background is not None
    scale = min(policy.width / picture.width, policy.height / picture.height)
    width = max(1, min(policy.width, round(picture.width * scale)))
    height = max(1, min(policy.height, round(picture.height * scale)))
    inner = picture.resize((width, height), Image.Resampling.BILINEAR)
    padded = Image.new(picture.mode, (policy.width, policy.height), (policy.background,) * len(picture.getbands()))
    padded.paste(inner, ((policy.width - width) // 2, (policy.height - height) // 2))
    return padded


def _fit_array(array: npt.NDArray[Any], policy: ImagePolicy, file: Path) -> npt.NDArray[np.uint8]:
    if array.dtype != np.uint8:
        raise DataError(
            f"{file}: holds {array.dtype}, expected uint8 (0..255)"
            + ("; scale floats to 0..255 and round" if array.dtype.kind == "f" else "")
        )
    accepted: list[tuple[int, ...]] = [policy.shape]
    if policy.channels == 1:
        accepted.append(policy.shape[:2])
    if policy.height == policy.width == 1:
        accepted.append(policy.shape[2:])
    if array.shape not in accepted:
        raise DataError(
            f"{file}: shape {list(array.shape)}, expected {' or '.join(str(list(shape)) for shape in accepted)} "
            f"(arrays are taken as they are, never resized)"
        )
    return np.array(array.reshape(policy.shape), dtype=np.uint8, order="C")


def _describe(policy: ImagePolicy) -> str:
    if policy.height == policy.width == 1:
        return f"{policy.channels} features"
    return f"images of {policy.channels} channels"


def _beginning(file: Path) -> str:
    with file.open("rb") as stream:
        head = stream.read(12)
    return f"it begins with {head!r}" if head else "it is empty"


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:100] if text else type(error).__name__
