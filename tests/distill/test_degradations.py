"""Degradations: seeded, graded, composable in physical order."""

from __future__ import annotations

import numpy as np
import pytest
from burnish.distill.degradations import KINDS, STAGES, degrade, low_light
from burnish.runtime.tree import LEAVES
from numpy.typing import NDArray


def mse(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.mean((a - b) ** 2))


@pytest.fixture(scope="module")
def crop(photo: NDArray[np.float32]) -> NDArray[np.float32]:
    return photo[120:280, 100:292]


@pytest.mark.parametrize("kind", KINDS)
def test_severity_orders_the_damage(crop: NDArray[np.float32], kind: str) -> None:
    errors = [np.mean([mse(degrade(crop, {kind: s}, seed), crop) for seed in range(4)]) for s in (0.1, 0.5, 1.0)]
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(crop: NDArray[np.float32], kind: str) -> None:
    first, second = degrade(crop, {kind: 0.7}, 1), degrade(crop, {kind: 0.7}, 1)
    np.testing.assert_array_equal(first, second)
    if kind not in ("jpeg", "defocus_blur"):
        assert mse(first, degrade(crop, {kind: 0.7}, 2)) > 1e-6


def test_every_leaf_has_a_kind_and_pictures_stay_eight_bit(crop: NDArray[np.float32]) -> None:
    assert {kind.leaf for kind in KINDS.values()} == set(LEAVES)
    mixed = degrade(crop, {"haze": 0.5, "rain": 0.5, "gaussian_noise": 0.3}, 0)
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed * 255, np.round(mixed * 255), atol=1e-4)


def test_noise_has_the_stated_sigma(crop: NDArray[np.float32]) -> None:
    middle = 0.3 + 0.4 * crop  # away from clipping
    noise = degrade(middle, {"gaussian_noise": 0.5}, 0) - middle
    assert noise.std() * 255 == pytest.approx(25.0, rel=0.03)


def test_a_cameras_noise_is_shared_by_neighbours_and_larger_in_the_dark() -> None:
    """As demosaicing and a tone curve leave it; white noise is neither."""

    def noise_on(level: float, kind: str) -> NDArray[np.float32]:
        grey = np.full((96, 96, 3), level, np.float32)
        return np.stack([degrade(grey, {kind: 0.4}, seed) - grey for seed in range(12)])

    def shared(noise: NDArray[np.float32]) -> float:
        return float(np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1])

    camera, white = noise_on(0.5, "camera_noise"), noise_on(0.5, "gaussian_noise")
    assert shared(camera) > 0.5 > 0.1 > abs(shared(white))
    assert np.abs(camera.mean((0, 1, 2))).max() < 0.1 * camera.std()
    green = camera[..., 1].std()
    assert min(camera[..., 0].std(), camera[..., 2].std()) > 1.2 * green
    assert noise_on(0.1, "camera_noise").std() > 1.2 * camera.std()


def test_order_is_physical_whatever_the_order_given(crop: NDArray[np.float32]) -> None:
    one = degrade(crop, {"jpeg": 0.5, "haze": 0.5, "motion_blur": 0.5}, 3)
    other = degrade(crop, {"motion_blur": 0.5, "haze": 0.5, "jpeg": 0.5}, 3)
    np.testing.assert_array_equal(one, other)
    assert [step.stage for step in low_light(0.5)] == ["light", "sensor"]
    assert STAGES.index("weather") < STAGES.index("light") < STAGES.index("optics") < STAGES.index("sensor")


def test_nothing_changes_nothing(crop: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(degrade(crop, {}, 0), crop, atol=1 / 254)


def test_wrong_severity_is_named(crop: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="rain"):
        degrade(crop, {"rain": 1.5}, 0)
