"""Pictures as model inputs: PNG and JPEG, decoded within bounds and scaled to the input's shape."""

from __future__ import annotations

import io
import warnings
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from control_plane.errors import InvalidInputError, TooLargeError
from serving_agent.contract.signature import TensorSpec
from serving_agent.datatypes import FLOATS, NUMPY_TYPE

MAX_BYTES: Final = 32 * 1024**2
MAX_PIXELS: Final = 50_000_000
MAX_SIDE: Final = 4096
"""Of the scaled picture, where the signature leaves its size open."""
MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}
"""Channels to Pillow's name for them."""


def layout(spec: TensorSpec) -> tuple[int, int, int, bool] | None:
    """(channels, height, width, whether channels come first) of an input that a picture fits, -1 for open.

    That is a numeric one of shape [N, C, H, W] or [N, H, W, C] with 1, 3 or 4 channels, or [N, H, W]; N is 1
    or open.
    """
    if spec.datatype in ("BYTES", "BOOL") or not spec.shape or spec.shape[0] not in (-1, 1):
        return None
    sizes = spec.shape[1:]
    if len(sizes) == 2 and all(size == -1 or size >= 4 for size in sizes):
        return (1, *sizes, True) if -1 not in sizes else None
    if len(sizes) != 3:
        return None
    if sizes[0] in MODES:
        return sizes[0], sizes[1], sizes[2], True
    return (sizes[2], sizes[0], sizes[1], False) if sizes[2] in MODES else None


def fits(spec: TensorSpec) -> bool:
    """Whether *spec* takes a picture."""
    return layout(spec) is not None


def decode(content: bytes, spec: TensorSpec) -> npt.NDArray[Any]:
    """The picture as an array of the input's shape and type: floats from 0 to 1, integers from 0 to 255.

    It turns as its EXIF says. Raises InvalidInputError, TooLargeError.
    """
    found = layout(spec)
    if found is None:
        raise InvalidInputError(f"input {spec.name!r} takes no picture: it is {spec}")
    channels, height, width, first = found
    pixels = _pixels(content, channels, (height, width), spec.name)
    if spec.datatype in FLOATS:
        array = (pixels.astype(np.float32) / np.float32(255)).astype(NUMPY_TYPE[spec.datatype])
    else:
        array = np.minimum(pixels, np.iinfo(NUMPY_TYPE[spec.datatype]).max).astype(NUMPY_TYPE[spec.datatype])
    if first:
        array = np.moveaxis(array, -1, 0)
    return np.ascontiguousarray(array.reshape(array.shape if len(spec.shape) == 4 else array.shape[1:]))[None]


def _pixels(content: bytes, channels: int, wanted: tuple[int, int], name: str) -> npt.NDArray[np.uint8]:
    """Samples of shape (height, width, channels); a wanted size of -1 is the picture's own."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if len(content) > MAX_BYTES:
        raise TooLargeError(f"a picture may have {MAX_BYTES // 1024**2} MiB at most")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise TooLargeError(f"a picture may have {MAX_PIXELS} pixels at most")
                picture = ImageOps.exif_transpose(opened).convert(MODES[channels])
    except (
        UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:  # fmt: skip
        raise InvalidInputError(
            f"the picture for input {name!r} cannot be read: {str(error)[:200]}",
            next_step="Send a PNG or a JPEG.",
        ) from error
    height, width = (
        own if size == -1 else size for size, own in zip(wanted, (picture.height, picture.width), strict=True)
    )
    if max(height, width) > MAX_SIDE:
        raise TooLargeError(f"a picture for an input of open size may be {MAX_SIDE} pixels wide and high")
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.uint8).reshape(height, width, channels)
