"""Reading and writing pictures: orientation, alpha, grey, 16 bits and colour profiles survive a restoration."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from . import deep_color, files
from .errors import InputError

MAX_PIXELS = 100_000_000
MAX_SIDE = 30_000
# Not all that Pillow knows: among the others are formats that start programs.
FORMATS = {"AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP"}
# What a profile may take: larger ones than this are not profiles, or hide something.
MAX_PROFILE_BYTES = 4 << 20

DEPTHS = (np.dtype(np.uint8), np.dtype(np.uint16))
Pixels = NDArray[Any]  # of one of these


@dataclass(frozen=True, eq=False)
class Picture:
    """`pixels`: H×W×3, upright, uint8 or uint16, which `bits` follows; given as floats in [0, 1] they are rounded to `bits`.

    `alpha`: H×W, of the same depth. The rest is what writing needs to give back what came in; `notes` say what of a file was
    not taken over. Raises InputError for pixels of another kind, none, or too many.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    bits: int = 8
    grey: bool = False
    icc_profile: bytes | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pixels = _checked(self.pixels)
        if pixels.dtype.kind == "f":
            pixels = _rounded(pixels, self.bits)
        alpha = None if self.alpha is None else _array(self.alpha)
        if alpha is not None and (alpha.dtype, alpha.shape) != (pixels.dtype, pixels.shape[:2]):
            expected = f"{pixels.dtype} {pixels.shape[:2]}, as the pixels are"
            raise InputError(f"got alpha of {alpha.dtype} {alpha.shape}; expected {expected}")
        object.__setattr__(self, "pixels", np.ascontiguousarray(pixels))
        object.__setattr__(self, "bits", 8 * pixels.dtype.itemsize)

    @property
    def rgb(self) -> NDArray[np.float32]:
        """float32 H×W×3 in [0, 1]."""
        return self.pixels.astype(np.float32) / np.float32(2**self.bits - 1)

    def with_rgb(self, pixels: Pixels) -> Picture:
        """The same picture with other pixels, integers of its depth or floats in [0, 1]."""
        return replace(self, pixels=pixels)


def _checked(given: object) -> Pixels:
    """What was given, where it is an array H×W×3 of a depth or of floats and of a size that can be restored."""
    pixels = _array(given)
    if not (pixels.dtype in DEPTHS or pixels.dtype.kind == "f") or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(f"got an array of {pixels.dtype} {pixels.shape}; expected H×W×3 of uint8, uint16 or floats")
    if pixels.size == 0:
        raise InputError(f"got an empty array {pixels.shape}; expected at least one pixel")
    _check_size("the array", pixels.shape[1], pixels.shape[0])
    return pixels


def _array(given: object) -> Pixels:
    if not isinstance(given, np.ndarray):
        raise InputError(
            f"got {type(given).__name__}; expected a file's path, a Picture, or an array of uint8 or uint16 H×W×3, "
            "of a PIL image numpy.asarray(image.convert('RGB'))"
        )
    return given


def _rounded(values: Pixels, bits: int) -> Pixels:
    if bits not in (8, 16):
        raise InputError(f"got bits={bits}; expected 8 or 16")
    if not np.isfinite(values).all():
        raise InputError("got pixels that are no numbers; expected floats in [0, 1]")
    return np.rint(np.clip(values, 0, 1) * (2**bits - 1)).astype(np.uint16 if bits == 16 else np.uint8)


def from_array(pixels: Pixels) -> Picture:
    """A picture from uint8 or uint16 H×W×3 (or H×W×4, H×W×1, H×W×2, H×W) pixels. Raises InputError for anything else."""
    pixels = _array(pixels)
    if pixels.dtype not in DEPTHS or pixels.ndim not in (2, 3):
        raise InputError(f"got an array of {pixels.dtype} {pixels.shape}; expected uint8 or uint16 H×W×3")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    height, width, channels = pixels.shape
    if channels not in (1, 2, 3, 4):
        raise InputError(f"got {channels} channels; expected 1 (grey), 2 (grey + alpha), 3 (RGB) or 4 (RGB + alpha)")
    grey = channels < 3
    colour = np.broadcast_to(pixels[..., :1], (height, width, 3)) if grey else pixels[..., :3]
    return Picture(colour, pixels[..., -1] if channels in (2, 4) else None, grey=grey)


def read(source: str | Path | BinaryIO) -> Picture:
    """Read a picture file or stream, upright. Raises InputError when it is not a picture, damaged or too large."""
    if isinstance(source, str | Path):
        if not Path(source).is_file():
            raise InputError(f"{source} is not a file; expected a picture such as photo.jpg")
        with Path(source).open("rb") as file:
            return _read(file, str(source))
    if not hasattr(source, "read"):
        raise InputError(f"got {type(source).__name__}; expected a picture file's path, or a stream opened for reading")
    return _read(source, "the upload")


def _read(file: BinaryIO, name: str) -> Picture:
    try:
        image = Image.open(file)
        if image.format not in FORMATS:
            raise InputError(f"{name} is a {image.format} file; expected one of {', '.join(sorted(FORMATS))}")
        _check_size(name, *image.size)
        # The profile of inks, or of LAB, does not describe the RGB that they become.
        profile = None if image.mode in ("CMYK", "LAB") else _profile(image)
        # The second frame of a phone's MPO is a preview or a gain map.
        several = getattr(image, "is_animated", False) and image.format != "MPO"
        deep = deep_color.is_deep(image, file)
        pixels = deep_color.decode(image, file)
        picture = _decode(ImageOps.exif_transpose(image)) if pixels is None else from_array(pixels)
        notes = (
            (several, f"{name} has several frames; only the first was restored"),
            (deep and picture.bits == 8, f"{name} holds more than 8 bits a sample; it was restored in 8 bits"),
        )
        return replace(picture, icc_profile=profile, notes=tuple(note for applies, note in notes if applies))
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
    if image.mode in ("I;16", "I;16B", "I;16L"):
        return from_array(deep_color.with_clear(np.asarray(image).astype(np.uint16)[..., None], image))
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


def to_array(picture: Picture) -> Pixels:
    """uint8 or uint16 H×W×C: grey and alpha as they came."""
    if not picture.grey and picture.alpha is None:
        return picture.pixels
    planes = picture.pixels
    if picture.grey:
        planes = np.rint(planes.mean(axis=2, keepdims=True)).astype(planes.dtype)
    return planes if picture.alpha is None else np.concatenate([planes, picture.alpha[..., None]], axis=2)


def to_eight_bits(pixels: Pixels) -> NDArray[np.uint8]:
    """uint8 or uint16 pixels of any shape, rounded to uint8."""
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def write(picture: Picture, path: Path) -> None:
    """Write beside `path` and rename. 16 bits stay in PNG and TIFF, alpha where a format has it. Raises InputError."""
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
    kind = Image.registered_extensions().get(suffix)
    if kind is None:
        raise ValueError(f"unknown file extension: {suffix}")
    if picture.bits == 16 and kind in ("PNG", "TIFF"):
        deep = deep_color.encode_png if kind == "PNG" else deep_color.encode_tiff
        return deep(to_array(picture), picture.icc_profile)
    pixels = to_eight_bits(to_array(picture))
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    options: dict[str, Any] = {}
    if kind == "JPEG":
        image = image.convert("L" if picture.grey else "RGB")
        options = {"quality": 95, "subsampling": 0}
    stream = io.BytesIO()
    image.save(stream, kind, icc_profile=picture.icc_profile, **options)
    return stream.getvalue()
