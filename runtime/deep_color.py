"""16-bit colour of PNG, TIFF and PPM, which Pillow cuts to 8 bits where it reads, and does not write."""

from __future__ import annotations

import io
import re
import struct
import sys
import zlib
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from .errors import InputError

Pixels = NDArray[Any]
# What says, in the head of formats that Pillow cuts to 8 bits, that samples are deeper: av1C's high_bitdepth, SIZ's Ssiz.
DEEP_HEADS = {
    "AVIF": re.compile(rb"av1C..[\x40-\x7f\xc0-\xff]", re.DOTALL),
    "JPEG2000": re.compile(rb"\xff\x4f\xff\x51.{38}[\x08-\x7f\x88-\xff]", re.DOTALL),
}
HEAD_BYTES = 1 << 16


def is_deep(image: ImageFile.ImageFile, file: BinaryIO) -> bool:
    """Whether the file holds more than 8 bits a sample, as far as its head tells; the image is not decoded yet."""
    if image.format == "TIFF":
        return max(_tag(image, 258, (1,))) > 8  # BitsPerSample
    if image.format == "PPM":
        return _peak(image) > 255
    head = DEEP_HEADS.get(image.format or "")
    file.seek(0)
    return head is not None and head.search(file.read(HEAD_BYTES)) is not None


def _tag(image: Image.Image, number: int, default: Any) -> Any:
    """What a TIFF says under a number."""
    tags: Any = getattr(image, "tag_v2", {})
    return tags.get(number, default)


def _peak(image: ImageFile.ImageFile) -> int:
    """Of a PPM that is not decoded yet: the number for full light, where Pillow has to scale by it."""
    decoder, _, _, arguments = image.tile[0]
    return arguments[1] if decoder.startswith("ppm") and isinstance(arguments, tuple) else 255


def decode(image: ImageFile.ImageFile, file: BinaryIO) -> Pixels | None:
    """uint16 H×W×C, upright, of a picture of 16-bit colour, H×W of 12-bit grey; None of every other.

    Raises InputError where Pillow cannot.
    """
    if image.format == "PPM" and image.mode == "RGB" and image.tile[0][0] == "ppm" and _peak(image) > 255:
        return _decode_ppm(image, file)
    packing = _packing(image, file)
    if packing == "I;12":  # which Pillow leaves as it is
        values = np.asarray(ImageOps.exif_transpose(image)).astype(np.uint32)
        return ((values * 65535 + 2047) // 4095).astype(np.uint16)
    return None if packing is None else with_clear(_decode_packed(image, file, packing), image)


def _decode_ppm(image: ImageFile.ImageFile, file: BinaryIO) -> Pixels:
    """A P6 of two bytes a sample, uint16 H×W×3."""
    width, height = image.size
    file.seek(image.tile[0][2])
    samples = np.frombuffer(file.read(6 * width * height), ">u2").reshape(height, width, 3)
    peak = _peak(image)
    return ((np.minimum(samples, peak).astype(np.uint32) * 65535 + peak // 2) // peak).astype(np.uint16)


def _packing(image: ImageFile.ImageFile, file: BinaryIO) -> str | None:
    """How 16-bit colour, or 12-bit grey, lies in a PNG or TIFF, in Pillow's words ("RGB;16B"). None for everything else."""
    decoder, _, _, arguments = image.tile[0] if image.tile else ("", None, 0, None)
    if _tag(image, 284, 1) == 2:  # PlanarConfiguration: every colour in a plane of its own
        if decoder == "raw" and is_deep(image, file):  # Pillow takes each for 8 bits
            raise InputError("the picture has 16-bit colours in separate planes; expected them interleaved, save it so")
        return None
    name = str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)
    return name if re.fullmatch("(RGB|RGBX|RGBA);16[BLN]|LA;16B|I;12", name) else None


def _decode_packed(image: ImageFile.ImageFile, file: BinaryIO, packing: str) -> Pixels:
    """uint16 H×W×C, upright. Of a sample Pillow keeps the high byte; told the other byte order, it keeps the low one."""
    if packing == "LA;16B":  # as long as four samples of 8 bits
        return _unpacked(image, "RGBA").view(">u2").astype(np.uint16)
    little = packing[-1] == "L" or (packing[-1] == "N" and sys.byteorder == "little")
    pixels = _unpacked(image, packing).astype(np.uint16)
    pixels <<= 8
    pixels |= _unpacked(Image.open(file), packing[:-1] + ("B" if little else "L"))
    return pixels


def _unpacked(image: ImageFile.ImageFile, packing: str) -> NDArray[np.uint8]:
    """The picture in 8 bits, upright, as if its samples lay in the file as `packing` says."""

    def packed(arguments: Any) -> Any:
        return (packing, *arguments[1:]) if isinstance(arguments, tuple) else packing

    image.tile = [tile._replace(args=packed(tile.args)) for tile in image.tile]
    ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(image)


def with_clear(pixels: Pixels, image: Image.Image) -> Pixels:
    """16-bit pixels, with alpha where a PNG says that one of its colours is transparent."""
    colour = image.info.get("transparency")
    if colour is None:
        return pixels
    opaque = np.any(pixels != np.asarray(colour), axis=2, keepdims=True)
    return np.concatenate([pixels, opaque * np.uint16(65535)], axis=2)


def encode_png(pixels: Pixels, profile: bytes | None) -> bytes:
    """A PNG of uint16 H×W×C: grey, RGB, either with alpha."""
    import png

    height, width, planes = pixels.shape
    make_writer: Any = png.Writer  # its annotations say less than it takes
    writer = make_writer(width, height, greyscale=planes < 3, alpha=planes in (2, 4), bitdepth=16)
    stream = io.BytesIO()
    writer.write_packed(stream, (row.astype(">u2").tobytes() for row in pixels.reshape(height, width * planes)))
    return _with_profile(stream.getvalue(), profile)


def encode_tiff(pixels: Pixels, profile: bytes | None) -> bytes:
    """An uncompressed TIFF of uint16 H×W×C: Pillow writes its directory, but not pixels of 16-bit colour."""
    from PIL import TiffImagePlugin as tiff

    if pixels.shape[2] == 2:  # which few read, Pillow not among them
        pixels = pixels[..., [0, 0, 0, 1]]
    height, width, planes = pixels.shape
    data = pixels.astype("<u2").tobytes()
    directory = tiff.ImageFileDirectory_v2()
    directory[tiff.IMAGEWIDTH] = width
    directory[tiff.IMAGELENGTH] = directory[tiff.ROWSPERSTRIP] = height
    directory[tiff.BITSPERSAMPLE] = (16,) * planes
    directory[tiff.SAMPLESPERPIXEL] = planes
    directory[tiff.COMPRESSION] = 1  # none
    directory[tiff.PHOTOMETRIC_INTERPRETATION] = 1 if planes == 1 else 2  # grey, RGB
    directory[tiff.STRIPOFFSETS] = 0  # behind the directory
    directory[tiff.STRIPBYTECOUNTS] = len(data)
    if planes == 4:
        directory[tiff.EXTRASAMPLES] = 2  # alpha that colours were not multiplied by
    if profile is not None:
        directory[tiff.ICCPROFILE] = profile
    stream = io.BytesIO()
    directory.save(stream)
    return stream.getvalue() + data


def _with_profile(data: bytes, profile: bytes | None) -> bytes:
    """A PNG with its colour profile in an iCCP chunk behind the header; pypng writes none."""
    if profile is None:
        return data
    body = b"iCCP" + b"ICC profile\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    head = 8 + 25  # signature and IHDR
    return data[:head] + chunk + data[head:]
