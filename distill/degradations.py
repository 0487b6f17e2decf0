"""Synthetic degradations: seeded, with a severity in [0, 1], composed in the order in which light meets a camera.

A degradation contributes steps to physical stages (scene → weather → light → optics → sensor → jpeg); a mixture is the
union of its members' steps, run stage by stage. So low light dims the scene before the lens blurs it and adds its noise
after. Everything is numpy and Pillow: pictures are float32 H×W×3, sRGB in [0, 1].
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[Any]  # float32; numpy's stubs lose the precision in arithmetic
Apply = Callable[[Picture, np.random.Generator], Picture]

STAGES = ("scene", "weather", "light", "optics", "sensor", "jpeg")
# Fills in a colour's missing sites from their neighbours, once divided by how many there are.
BILINEAR = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]).astype(np.float32)


@dataclass(frozen=True)
class Step:
    """One physical effect: where in the chain it acts and what it does."""

    stage: str
    apply: Apply


def degrade(picture: Picture, severities: Mapping[str, float], seed: int) -> Picture:
    """Degrade a picture as `severities` say, in physical order, and round to 8 bits as a file would.

    `picture`: float32 H×W×3 in [0, 1]. `severities`: kind (a key of `KINDS`) → severity in [0, 1].
    The result depends on the arguments alone. Raises KeyError for an unknown kind, ValueError for a severity outside [0, 1].
    """
    steps: list[tuple[int, str, Step]] = []
    for kind, severity in severities.items():
        if not 0.0 <= severity <= 1.0:
            raise ValueError(f"severity of {kind} is {severity}, expected a number in [0, 1]")
        steps += [(STAGES.index(step.stage), kind, step) for step in KINDS[kind].plan(severity)]
    order = list(KINDS)
    # One independent random stream a kind and stage: adding a second degradation does not change the first.
    for stage, kind, step in sorted(steps, key=lambda s: (s[0], order.index(s[1]))):
        rng = np.random.default_rng([seed, order.index(kind), stage])
        picture = np.clip(step.apply(picture, rng), 0.0, 1.0).astype(np.float32)
    return (np.round(picture * 255.0) / 255.0).astype(np.float32)


# --- building blocks -------------------------------------------------------------------------------------------------


def _resize(field: Picture, height: int, width: int) -> Picture:
    return np.asarray(Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC), np.float32)


def _resize_colour(picture: Picture, height: int, width: int) -> Picture:
    if picture.shape[:2] == (height, width):
        return picture
    channels = (np.ascontiguousarray(picture[..., channel], np.float32) for channel in range(3))
    return np.stack([_resize(channel, height, width) for channel in channels], 2)


def smooth_noise(height: int, width: int, rng: np.random.Generator, cells: float, octaves: int = 4) -> Picture:
    """Fractal noise in [0, 1], H×W: `cells` cells across the longer side, halved amplitude an octave."""
    total = np.zeros((height, width), np.float32)
    amplitude = 1.0
    for _ in range(octaves):
        scale = cells / max(height, width)
        rows, columns = max(2, round(height * scale) + 1), max(2, round(width * scale) + 1)
        total += amplitude * _resize(rng.random((rows, columns), np.float32), height, width)
        amplitude *= 0.5
        cells = min(cells * 2, max(height, width))
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def convolve(picture: Picture, kernel: Picture) -> Picture:
    """Correlate every channel of H×W or H×W×C with an odd-sized kernel, borders mirrored (by FFT)."""
    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    pad = ((rows, rows), (columns, columns), (0, 0))[: picture.ndim]
    padded = np.pad(picture, pad, mode="symmetric")
    shape = (padded.shape[0], padded.shape[1])
    spectrum = np.fft.rfft2(kernel[::-1, ::-1], shape)
    if picture.ndim == 3:
        spectrum = spectrum[..., None]
    filtered = np.fft.irfft2(np.fft.rfft2(padded, shape, axes=(0, 1)) * spectrum, shape, axes=(0, 1))
    return filtered[2 * rows :, 2 * columns :].astype(np.float32)


def line_kernel(length: float, angle: float, width: float = 0.8) -> Picture:
    """A soft-edged line through the centre, `length` pixels long at `angle` radians, normalised to sum 1."""
    radius = max(1, int(np.ceil(length / 2 + width)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float32)
    along = np.abs(x * np.cos(angle) + y * np.sin(angle))
    across = np.abs(-x * np.sin(angle) + y * np.cos(angle))
    kernel = np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(width - across, 0, 1)
    return (kernel / kernel.sum()).astype(np.float32)


def disk_kernel(radius: float) -> Picture:
    """An antialiased disk (defocus point spread), normalised to sum 1."""
    size = int(np.ceil(radius))
    y, x = np.mgrid[-size : size + 1, -size : size + 1].astype(np.float32)
    kernel = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    return (kernel / kernel.sum()).astype(np.float32)


def _scatter(height: int, width: int, density: float, rng: np.random.Generator) -> Picture:
    """Isolated points with strengths in [0.4, 1], `density` of them a pixel."""
    points = rng.random((height, width), np.float32) < density
    return points * (0.4 + 0.6 * rng.random((height, width), np.float32))


def _linear(picture: Picture) -> Picture:
    return np.power(np.maximum(picture, 0.0), 2.2)


def _display(picture: Picture) -> Picture:
    return np.power(np.maximum(picture, 0.0), 1 / 2.2)


# --- sensor ----------------------------------------------------------------------------------------------------------


def gaussian_noise(severity: float) -> list[Step]:
    """Additive white Gaussian noise, σ = 50·severity / 255."""

    def apply(picture: Picture, rng: np.random.Generator) -> Picture:
        return picture + (50.0 * severity / 255.0) * rng.standard_normal(picture.shape, np.float32)

    return [Step("sensor", apply)]


def poisson_noise(severity: float) -> list[Step]:
    """Poisson-Gaussian noise: variance grows with the light; at full severity σ ≈ 45/255 in white, 12/255 in black."""

    def apply(picture: Picture, rng: np.random.Generator) -> Picture:
        read, shot = (12.0 * severity / 255.0) ** 2, (45.0 * severity / 255.0) ** 2
        return picture + np.sqrt(read + (shot - read) * picture) * rng.standard_normal(picture.shape, np.float32)

    return [Step("sensor", apply)]


def camera_noise(severity: float) -> list[Step]:
    """Shot and read noise of a sensor as its picture shows it: neighbours share it, since missing sites of the Bayer pattern
    are filled in, and white balance and the tone curve make it grow in red, in blue and in the dark.

    Levels of phones and cameras after Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019, section 3:
    shot noise of 2·10⁻⁴ to 1.2·10⁻² in linear light. In half of the pictures it is up to 1.8 times as coarse, as cameras'
    own filters leave it.
    """

    def apply(picture: Picture, rng: np.random.Generator) -> Picture:
        height, width = picture.shape[:2]
        shot = 2e-4 * 60**severity
        read = shot**2.18 * np.exp(1.2 + rng.normal(0, 0.26))
        balance = np.array([rng.uniform(1.6, 2.4), 1, rng.uniform(1.4, 1.9)], np.float32)
        coarseness = max(1.0, rng.uniform(0.2, 1.8))
        rows, columns = round(height / coarseness), round(width / coarseness)
        light = _linear(picture)
        raw = _resize_colour(light, rows, columns) / balance
        sites = _bayer(rows, columns, rng)
        strength = np.sqrt(shot * np.clip(raw, 0, 1) + np.float32(read))
        noise = strength * sites * rng.standard_normal(raw.shape, np.float32)
        filled = np.where(sites, noise, convolve(noise, BILINEAR) / convolve(sites, BILINEAR))
        return _display(light + balance * _resize_colour(filled, height, width))

    return [Step("sensor", apply)]


def _bayer(rows: int, columns: int, rng: np.random.Generator) -> Picture:
    """Where a Bayer pattern that begins anywhere has red, green and blue: 1 in one of three channels, else 0."""
    top, left = rng.integers(2, size=2)
    y, x = (np.arange(rows) + top) % 2, (np.arange(columns) + left) % 2
    return np.eye(3, dtype=np.float32)[y[:, None] + x[None, :]]


# --- optics ----------------------------------------------------------------------------------------------------------


def motion_blur(severity: float) -> list[Step]:
    """A hand-shake path: 3 to 21 pixels long, slightly bent."""

    def apply(picture: Picture, rng: np.random.Generator) -> Picture:
        length, angle, bend = 3.0 + 18.0 * severity, rng.uniform(0, np.pi), rng.uniform(-0.6, 0.6)
        # Two straight halves joined at the centre make a bent path.
        halves = [line_kernel(length / 2, angle), line_kernel(length / 2, angle + bend)]
        radius = int(np.ceil(length / 2)) + 1
        kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
        for half, sign, direction in zip(halves, (1, -1), (angle, angle + bend), strict=True):
            row = radius + round(sign * np.sin(direction) * length / 4)
            column = radius + round(sign * np.cos(direction) * length / 4)
            size = half.shape[0] // 2
            top, left = max(0, row - size), max(0, column - size)
            bottom, right = min(kernel.shape[0], row + size + 1), min(kernel.shape[1], column + size + 1)
            kernel[top:bottom, left:right] += half[
                top - row + size : bottom - row + size, left - column + size : right - column + size
            ]
        return _display(convolve(_linear(picture), kernel / kernel.sum()))

    return [Step("optics", apply)]


def defocus_blur(severity: float) -> list[Step]:
    """A defocus disk of radius 0.6 to 4.5 pixels, in linear light."""

    def apply(picture: Picture, _: np.random.Generator) -> Picture:
        return _display(convolve(_linear(picture), disk_kernel(0.6 + 3.9 * severity)))

    return [Step("optics", apply)]


# --- jpeg ------------------------------------------------------------------------------------------------------------


def jpeg(severity: float) -> list[Step]:
    """JPEG at quality 90 − 80·severity, 4:2:0."""

    def apply(picture: Picture, _: np.random.Generator) -> Picture:
        stream = io.BytesIO()
        pixels = np.round(picture * 255).astype(np.uint8)
        Image.fromarray(pixels).save(stream, "JPEG", quality=round(90 - 80 * severity), subsampling=2)
        return np.asarray(Image.open(stream), np.float32) / 255.0

    return [Step("jpeg", apply)]


# --- weather ---------------------------------------------------------------------------------------------------------


def rain(severity: float) -> list[Step]:
    """Streaks at three distances that share a wind, screened over a thin veil."""

    def apply(picture: Picture, rng: np.random.Generator) -> Picture:
        height, width = picture.shape[:2]
        wind = np.pi / 2 + rng.uniform(-0.45, 0.45)
        streaks = np.zeros((height, width), np.float32)
        # Near rain is sparse, long and bright, far rain dense, short and faint.
        for density, length, gain in ((0.010, 9, 0.55), (0.004, 18, 0.8), (0.0012, 32, 1.0)):
            points = _scatter(height, width, density * (0.35 + 0.9 * severity), rng)
            long = length * rng.uniform(0.8, 1.25)
            layer = convolve(points, line_kernel(long, wind + rng.normal(0, 0.03), rng.uniform(0.7, 1.2)))
            # The kernel sums to 1: times its length a lone streak peaks near its point's strength.
            streaks = np.maximum(streaks, gain * np.clip(layer * long, 0, 1))
        strength = 0.30 + 0.5 * severity
        veil = 0.16 * severity * (0.6 + 0.4 * smooth_noise(height, width, rng, 3))[..., None]
        light = 0.80 + 0.15 * rng.random()
        veiled = picture * (1 - veil) + light * veil
        opacity = (strength * streaks)[..., None]
        return veiled + opacity * np.maximum(light - 0.45 * veiled, 0)

    return [Step("weather", apply)]


def snow(severity: float) -> list[Step]:
    """Flakes of four sizes, each size with its own speed, over a faint bright veil."""

    def apply(picture: Picture, rng: np.random.Generator) -> Picture:
        height, width = picture.shape[:2]
        wind = np.pi / 2 + rng.uniform(-0.9, 0.9)
        cover = np.zeros((height, width), np.float32)
        for radius, density, speed in ((0.6, 0.012, 1.0), (1.2, 0.0040, 2.0), (2.3, 0.0010, 4.0), (4.0, 0.00018, 7.0)):
            points = _scatter(height, width, density * (0.3 + severity), rng)
            travel = speed * rng.uniform(0.3, 1.6) + 1
            disk = disk_kernel(radius * rng.uniform(0.85, 1.2))
            flakes = convolve(convolve(points, disk / disk.max()), line_kernel(travel, wind + rng.normal(0, 0.12)))
            cover = np.maximum(cover, np.clip(1.3 * flakes, 0, 1))
        veil = (0.14 * severity * (0.5 + 0.5 * smooth_noise(height, width, rng, 3)))[..., None]
        opacity = ((0.55 + 0.4 * severity) * cover)[..., None]
        white = np.array([0.95, 0.97, 1.0], np.float32)
        veiled = picture * (1 - veil) + 0.9 * white * veil
        return veiled * (1 - opacity) + white * opacity

    return [Step("weather", apply)]


def haze(severity: float) -> list[Step]:
    """Koschmieder scattering, I = J·t + A·(1 − t) with t = exp(−β·depth), in display values as the field's data sets do.

    Depth grows towards the top of the frame, rolls with low-frequency relief and follows the picture's own smooth
    brightness a little (skies are bright and far).
    """

    def apply(picture: Picture, rng: np.random.Generator) -> Picture:
        height, width = picture.shape[:2]
        tilt = np.linspace(1, 0, height, dtype=np.float32)[:, None]
        sky = smooth_sky(picture)
        depth = 0.45 * tilt + 0.30 * smooth_noise(height, width, rng, 2.5) + 0.25 * sky
        depth = 0.25 + depth * rng.uniform(0.6, 1.1)
        beta = 0.3 + 1.8 * severity
        transmission = np.exp(-beta * depth)[..., None]
        air = rng.uniform(0.72, 0.97) + rng.normal(0, 0.015, 3)
        return picture * transmission + np.float32(air) * (1 - transmission)

    return [Step("weather", apply)]


def smooth_sky(picture: Picture) -> Picture:
    """Large-scale brightness of the picture in [0, 1], H×W."""
    height, width = picture.shape[:2]
    grid = max(2, round(height / 32)), max(2, round(width / 32))
    return np.clip(_resize(_resize(picture.mean(axis=2, dtype=np.float32), *grid), height, width), 0, 1)


# --- light -----------------------------------------------------------------------------------------------------------


def low_light(severity: float) -> list[Step]:
    """Less light (exposure 0.5 to 0.04 in linear values), a tone curve, a slight cast, and the noise that lives in the dark."""

    def dim(picture: Picture, rng: np.random.Generator) -> Picture:
        exposure = 0.5 * (0.08**severity) * rng.uniform(0.85, 1.15)
        cast = 1 + rng.normal(0, 0.04 * severity, 3)
        gamma = 1 + 0.25 * severity * rng.random()
        return np.power(_display(_linear(picture) * exposure * np.float32(cast)), np.float32(gamma))

    def dark_noise(picture: Picture, rng: np.random.Generator) -> Picture:
        variance = (2.5 * severity / 255.0) ** 2 + (0.0016 * severity) * picture
        return picture + np.sqrt(variance) * rng.standard_normal(picture.shape, np.float32)

    return [Step("light", dim), Step("sensor", dark_noise)]


@dataclass(frozen=True)
class Kind:
    """A way to degrade: the leaf of the degradation tree it belongs to, and its steps for a severity."""

    leaf: str
    plan: Callable[[float], list[Step]]


KINDS: dict[str, Kind] = {
    "haze": Kind("haze", haze),
    "rain": Kind("rain", rain),
    "snow": Kind("snow", snow),
    "low_light": Kind("low_light", low_light),
    "motion_blur": Kind("blur", motion_blur),
    "defocus_blur": Kind("blur", defocus_blur),
    "gaussian_noise": Kind("noise", gaussian_noise),
    "poisson_noise": Kind("noise", poisson_noise),
    "jpeg": Kind("jpeg", jpeg),
    # Random streams go by the place: what came later stands last.
    "camera_noise": Kind("noise", camera_noise),
}
