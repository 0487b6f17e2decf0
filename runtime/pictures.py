"""Reading and writing pictures: orientation, alpha, grey, 16 bits and colour profiles survive a restoration."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from . import files
from .errors import InputError

MAX_PIXELS = 100_000_000
MAX_SIDE = 30_000
# Not all that Pillow knows: among the others are formats that start programs.
FORMATS = {"AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP"}
# What a profile may take: larger ones than this are not profiles, or hide something.
MAX_PROFILE_BYTES = 4 << 20

Pixels = NDArray[Any]  # uint8 or uint16


@dataclass(frozen=True, eq=False)
class Picture:
    """`pixels`: H×W×3, upright, uint8 or uint16; given as floats in [0, 1] they are rounded to `bits`.

    The rest is what writing needs to give back what came in; `notes` say what of a file was not taken over.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    bits: int = 8
    grey: bool = False
    icc_profile: bytes | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.dtype.kind == "f":
            object.__setattr__(self, "pixels", _rounded(self.pixels, self.bits))

    @property
    def rgb(self) -> NDArray[np.float32]:
        """float32 H×W×3 in [0, 1]."""
        return self.pixels.astype(np.float32) / np.float32(2**self.bits - 1)

    def with_rgb(self, pixels: Pixels) -> Picture:
        """The same picture with other pixels, integers of its depth or floats in [0, 1]."""
        return replace(self, pixels=pixels)


def _rounded(values: Pixels, bits: int) -> Pixels:
    peak = 2**bits - 1
    return np.rint(np.clip(values, 0, 1) * peak).astype(np.uint16 if bits == 16 else np.uint8)


def from_array(pixels: Pixels) -> Picture:
    """A picture from uint8 or uint16 H×W×3 (or H×W×4, H×W×1, H×W×2, H×W) pixels. Raises InputError for anything else."""
    if str(pixels.dtype) not in ("uint8", "uint16") or pixels.ndim not in (2, 3):
        raise InputError(f"got an array of {pixels.dtype} {pixels.shape}; expected uint8 or uint16 H×W×3")
    if pixels.size == 0:
        raise InputError(f"got an empty array {pixels.shape}; expected at least one pixel")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    height, width, channels = pixels.shape
    _check_size("the array", width, height)
    if channels not in (1, 2, 3, 4):
        raise InputError(f"got {channels} channels; expected 1 (grey), 2 (grey + alpha), 3 (RGB) or 4 (RGB + alpha)")
    grey = channels < 3
    colour = np.repeat(pixels[..., :1], 3, axis=2) if grey else np.ascontiguousarray(pixels[..., :3])
    alpha = pixels[..., -1] if channels in (2, 4) else None
    return Picture(colour, alpha, 8 * pixels.dtype.itemsize, grey)


def read(source: Path | BinaryIO) -> Picture:
    """Read a picture file or stream, upright. Raises InputError when it is not a picture, damaged or too large."""
    if isinstance(source, Path):
        if not source.is_file():
            raise InputError(f"{source} is not a file; expected a picture such as photo.jpg")
        with source.open("rb") as file:
            return _read(file, str(source))
    return _read(source, "the upload")


def _read(file: BinaryIO, name: str) -> Picture:
    try:
        image = Image.open(file)
        if image.format not in FORMATS:
            raise InputError(f"{name} is a {image.format} file; expected one of {', '.join(sorted(FORMATS))}")
        _check_size(name, *image.size)
        profile = _profile(image)
        if _is_deep_png(file):
            return replace(_read_deep_png(file), icc_profile=profile)
        # The second frame of a phone's MPO is a preview or a gain map.
        several = getattr(image, "is_animated", False) and image.format != "MPO"
        notes = (f"{name} has several frames; only the first was restored",) if several else ()
        # The profile of inks does not describe the RGB that they become.
        return replace(_decode(image), icc_profile=None if image.mode == "CMYK" else profile, notes=notes)
    except (InputError, MemoryError):
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"{name} has too many pixels; at most {MAX_PIXELS // 1_000_000} megapixels") from None
    except UnidentifiedImageError:
        raise InputError(f"{name} is no picture that can be read; expected an undamaged PNG, JPEG, …") from None
    except Exception as error:  # decoders of damaged files raise whatever they stumble over
        detail = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"{name} cannot be read as a picture ({detail}); expected an undamaged PNG, JPEG, …") from None


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        megapixels = MAX_PIXELS // 1_000_000
        raise InputError(f"{name} has {width}×{height} pixels; at most {megapixels} megapixels and {MAX_SIDE} a side")


def _profile(image: Image.Image) -> bytes | None:
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and 0 < len(profile) <= MAX_PROFILE_BYTES else None


def _decode(image: Image.Image) -> Picture:
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L"):
        return from_array(np.asarray(image).astype(np.uint16))
    if image.mode in ("I", "F"):
        return _from_wide_grey(image)
    if image.mode == "CMYK":
        return from_array(np.asarray(_from_inks(image)))
    has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La")
    if grey:
        return from_array(np.asarray(image.convert("LA" if has_alpha else "L")))
    return from_array(np.asarray(image.convert("RGBA" if has_alpha else "RGB")))


def _from_wide_grey(image: Image.Image) -> Picture:
    """32-bit grey: integers hold 16 bits, floats [0, 1] or, as TIFF files do, whatever their largest value makes of it."""
    values = np.asarray(image, np.float64)
    if not np.isfinite(values).all():
        raise InputError("the picture has values that are no numbers; expected finite ones")
    peak = 65535.0 if image.mode == "I" else max(1.0, float(values.max()))
    return from_array(np.rint(np.clip(values / peak, 0, 1) * 65535).astype(np.uint16))


def _from_inks(image: Image.Image) -> Image.Image:
    """CMYK as sRGB: by its own profile where it has a usable one."""
    from PIL import ImageCms

    profile = _profile(image)
    if profile is not None:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a damaged profile: as without one
    return image.convert("RGB")


def _is_deep_png(file: BinaryIO) -> bool:
    """16-bit colour, which Pillow cuts to 8 bits and pypng does not."""
    file.seek(0)
    header = file.read(26)
    # Bytes 24 and 25 of a PNG are bit depth and colour type.
    return header[:8] == b"\x89PNG\r\n\x1a\n" and header[24:25] == b"\x10"


def _read_deep_png(file: BinaryIO) -> Picture:
    import png

    file.seek(0)
    width, height, rows, info = png.Reader(file=file).asDirect()
    pixels = np.empty((height, width * info["planes"]), np.uint16)
    count = 0
    for count, row in enumerate(rows, 1):
        pixels[count - 1] = row
    if count != height:
        raise InputError(f"the picture has {count} of {height} rows; expected a whole one")
    return from_array(pixels.reshape(height, width, info["planes"]))


def to_array(picture: Picture) -> Pixels:
    """uint8 or uint16 H×W×C: grey and alpha as they came."""
    if not picture.grey and picture.alpha is None:
        return picture.pixels
    planes = picture.pixels
    if picture.grey:
        planes = np.rint(planes.mean(axis=2, keepdims=True)).astype(planes.dtype)
    return planes if picture.alpha is None else np.concatenate([planes, picture.alpha[..., None]], axis=2)


def write(picture: Picture, path: Path) -> None:
    """Write beside `path` and rename. Formats without alpha or 16 bits get what they can hold. Raises InputError."""
    suffix = path.suffix.lower()
    files.replace(path, lambda beside: beside.write_bytes(encode(picture, suffix)))


def check_suffix(path: Path) -> None:
    """Raises InputError where `write` knows no format for the file's suffix."""
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise InputError(
            f"cannot write {path} (unknown file extension: {path.suffix or 'none'}); expected one such as .png or .jpg"
        )


def encode(picture: Picture, suffix: str) -> bytes:
    """The picture as a file of the format that a suffix such as ".png" stands for. Raises ValueError for an unknown one."""
    pixels = to_array(picture)
    stream = io.BytesIO()
    if suffix == ".png" and picture.bits == 16:
        import png

        height, width, planes = pixels.shape
        make_writer: Any = png.Writer  # its annotations say less than it takes
        writer = make_writer(width, height, greyscale=picture.grey, alpha=picture.alpha is not None, bitdepth=16)
        writer.write_packed(stream, (row.astype(">u2").tobytes() for row in pixels.reshape(height, width * planes)))
        return _with_profile(stream.getvalue(), picture.icc_profile)
    shallow = pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)
    image = Image.fromarray(shallow.squeeze(2) if shallow.shape[2] == 1 else shallow)
    if suffix in (".jpg", ".jpeg"):
        image = image.convert("L" if picture.grey else "RGB")
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if suffix in (".jpg", ".jpeg") else {}
    kind = Image.registered_extensions().get(suffix)
    if kind is None:
        raise ValueError(f"unknown file extension: {suffix}")
    image.save(stream, kind, icc_profile=picture.icc_profile, **options)
    return stream.getvalue()


def _with_profile(data: bytes, profile: bytes | None) -> bytes:
    """A PNG with its colour profile in an iCCP chunk behind the header; pypng writes none."""
    if profile is None:
        return data
    body = b"iCCP" + b"ICC profile\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    head = 8 + 25  # signature and IHDR
    return data[:head] + chunk + data[head:]
