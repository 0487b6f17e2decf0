"""Reading and writing pictures: orientation, alpha, grey, 16 bits and colour profiles survive a restoration."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import png
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .errors import InputError
from .files import replace

MAX_PIXELS = 100_000_000
MAX_SIDE = 30_000


@dataclass(frozen=True)
class Picture:
    """`rgb`: float32 H×W×3 in [0, 1], upright. The rest is what writing needs to give back what came in."""

    rgb: NDArray[np.float32]
    alpha: NDArray[np.float32] | None = None
    bits: int = 8
    grey: bool = False
    icc_profile: bytes | None = None

    def with_rgb(self, rgb: NDArray[np.float32]) -> Picture:
        """The same picture with other pixels."""
        return Picture(rgb, self.alpha, self.bits, self.grey, self.icc_profile)


def from_array(pixels: NDArray[Any]) -> Picture:
    """A picture from uint8 or uint16 H×W×3 (or H×W×4, H×W) pixels. Raises InputError for anything else."""
    if str(pixels.dtype) not in ("uint8", "uint16") or pixels.ndim not in (2, 3):
        raise InputError(f"got an array of {pixels.dtype} {pixels.shape}; expected uint8 or uint16 H×W×3")
    if pixels.size == 0:
        raise InputError(f"got an empty array {pixels.shape}; expected at least one pixel")
    scaled = pixels.astype(np.float32) / float(np.iinfo(pixels.dtype).max)
    bits = 8 * pixels.dtype.itemsize
    if scaled.ndim == 2:
        scaled = scaled[..., None]
    channels = scaled.shape[2]
    if channels not in (1, 2, 3, 4):
        raise InputError(f"got {channels} channels; expected 1 (grey), 2 (grey + alpha), 3 (RGB) or 4 (RGB + alpha)")
    grey = channels < 3
    colour = np.repeat(scaled[..., :1], 3, axis=2) if grey else scaled[..., :3]
    alpha = scaled[..., -1] if channels in (2, 4) else None
    return Picture(np.ascontiguousarray(colour), alpha, bits, grey)


def read(path: Path) -> Picture:
    """Read a picture file, upright. Raises InputError when it is not a picture, truncated or too large."""
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a picture such as photo.jpg")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
        width, height = image.size
        if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
            raise InputError(
                f"{path} has {width}×{height} pixels; at most {MAX_PIXELS // 1_000_000} megapixels and {MAX_SIDE} a side"
            )
        if _is_deep_png(path):
            return _read_deep_png(path)
        icc = image.info.get("icc_profile")
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I;16", "I;16B", "I;16L"):
            return from_array(np.asarray(image).astype(np.uint16))
        has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        grey = image.mode in ("1", "L", "LA")
        if image.mode == "CMYK":
            icc = None  # the profile describes inks, not the RGB that comes out
        picture = from_array(np.asarray(image.convert("RGBA" if has_alpha else "RGB")))
        return Picture(picture.rgb, picture.alpha, 8, grey, icc)
    except (InputError, MemoryError):
        raise
    except (OSError, SyntaxError, ValueError, png.Error) as error:
        detail = str(error).split("\n")[0]
        raise InputError(f"{path} cannot be read as a picture ({detail}); expected an undamaged PNG, JPEG, …") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"{path} has too many pixels; at most {MAX_PIXELS // 1_000_000} megapixels") from None


def _is_deep_png(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(26)
    # Bytes 24 and 25 of a PNG are bit depth and colour type; Pillow cuts 16-bit colour to 8 bits, pypng does not.
    return header[:8] == b"\x89PNG\r\n\x1a\n" and header[24:25] == b"\x10"


def _read_deep_png(path: Path) -> Picture:
    with path.open("rb") as file:
        width, height, rows, info = png.Reader(file=file).asDirect()
        pixels = np.vstack([np.asarray(row, np.uint16) for row in rows]).reshape(height, width, info["planes"])
    return from_array(pixels)


def to_array(picture: Picture) -> NDArray[Any]:
    """uint8 or uint16 H×W×C: grey and alpha as they came."""
    channels = picture.rgb.mean(axis=2, keepdims=True) if picture.grey else picture.rgb
    if picture.alpha is not None:
        channels = np.concatenate([channels, picture.alpha[..., None]], axis=2)
    peak = 2**picture.bits - 1
    return np.round(np.clip(channels, 0, 1) * peak).astype(np.uint16 if picture.bits == 16 else np.uint8)


def write(picture: Picture, path: Path) -> None:
    """Write beside `path` and rename. Formats without alpha or 16 bits get what they can hold. Raises InputError."""
    pixels = to_array(picture)
    suffix = path.suffix.lower()

    def save(beside: Path) -> None:
        if suffix == ".png" and picture.bits == 16:
            height, width, planes = pixels.shape
            make_writer: Any = png.Writer  # its annotations say less than it takes
            writer = make_writer(width, height, greyscale=picture.grey, alpha=picture.alpha is not None, bitdepth=16)
            with beside.open("wb") as file:
                writer.write(file, pixels.reshape(height, width * planes).tolist())
            return
        shallow = pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)
        image = Image.fromarray(shallow.squeeze(2) if shallow.shape[2] == 1 else shallow)
        if suffix in (".jpg", ".jpeg"):
            image = image.convert("L" if picture.grey else "RGB")
        options: dict[str, Any] = {"quality": 95, "subsampling": 0} if suffix in (".jpg", ".jpeg") else {}
        image.save(beside, icc_profile=picture.icc_profile, **options)

    replace(path, save)
