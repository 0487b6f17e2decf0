"""The evaluator of Core ML packages: operations against torch (and Core ML on a Mac), rounding, refusals, damage."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import coremltools as ct
import numpy as np
import pytest
import torch
from burnish.runtime.errors import BackendError, BundleError
from burnish.runtime.mlprogram.operations import OPERATIONS
from burnish.runtime.mlprogram.package import Package, seal
from burnish.runtime.mlprogram.program import Function
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from torch import Tensor
from torch.nn import functional as F

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
needs_mac = pytest.mark.skipif(sys.platform != "darwin", reason="Core ML itself runs on macOS alone")


def save(
    build: Callable[..., Any], shapes: Sequence[tuple[int, ...]], path: Path, dtype: Any = types.fp32, ios: int = 17
) -> Path:
    """A package of one function, exactly as built."""
    target = {17: ct.target.iOS17, 18: ct.target.iOS18}[ios]
    program = mb.program([mb.TensorSpec(shape, dtype) for shape in shapes], target)(build)
    model: Any = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=target,
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    model.save(str(path))
    return path


def evaluate(path: Path, *inputs: Tensor, single: bool = False) -> Tensor:
    function = Function(Package.open(path), "main", single)
    (result,) = function.run(dict(zip(function.inputs, inputs, strict=True))).values()
    return result


def weights(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


class Case(NamedTuple):
    """An operation: how it is built of (element type, inputs), what it should give of inputs in float32."""

    name: str
    build: Callable[..., Any]
    expected: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...] = ((1, 4, 6, 8),)
    ios: int = 17


def t(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(array)


DEPTHWISE, DENSE, BIAS = weights(4, 1, 3, 3), weights(5, 4, 3, 2), weights(5)
UP, MATRIX = weights(4, 3, 2, 2), weights(7, 8)
CODES = np.random.default_rng(2).integers(-128, 128, (4, 6)).astype(np.int8)
SCALES, ZEROS = np.array([0.5, 0.25, 2, 1], np.float32), np.array([3, -4, 0, 100], np.int8)
BLOCKS = np.array([[0.5, 2], [0.25, 1]], np.float32)

CASES = [
    Case("add", lambda d, x, y: mb.add(x=x, y=y), torch.add, ((2, 3, 4), (3, 1))),
    Case("sub", lambda d, x, y: mb.sub(x=x, y=y), torch.sub, ((2, 3), (2, 3))),
    Case("mul", lambda d, x, y: mb.mul(x=x, y=y), torch.mul, ((1, 4, 6, 8), (1, 4, 1, 1))),
    Case("real_div", lambda d, x, y: mb.real_div(x=x, y=y), torch.div, ((2, 3), (1,))),
    Case("relu", lambda d, x: mb.relu(x=x), torch.relu),
    Case("sigmoid", lambda d, x: mb.sigmoid(x=x), torch.sigmoid),
    Case("abs", lambda d, x: mb.abs(x=x), torch.abs),
    Case("identity", lambda d, x: mb.identity(x=x), lambda x: x),
    Case("cast", lambda d, x: mb.cast(x=mb.cast(x=x, dtype="fp16"), dtype="fp32"), lambda x: x.half().float()),
    Case("clip", lambda d, x: mb.clip(x=x, alpha=d(-0.5), beta=d(0.25)), lambda x: x.clamp(-0.5, 0.25)),
    Case(
        "sigmoid_hard",
        lambda d, x: mb.sigmoid_hard(x=x, alpha=d(0.25), beta=d(0.5)),
        lambda x: (0.25 * x + 0.5).clamp(0, 1),
    ),
    Case(
        "thresholded_relu", lambda d, x: mb.thresholded_relu(x=x, alpha=d(0.5)), lambda x: torch.where(x >= 0.5, x, 0)
    ),
    Case("softmax", lambda d, x: mb.softmax(x=x, axis=-1), lambda x: F.softmax(x, -1), ((2, 5, 9),)),
    Case("softmax", lambda d, x: mb.softmax(x=x, axis=1), lambda x: F.softmax(x, 1), ((2, 5, 9),)),
    Case("matmul", lambda d, x, y: mb.matmul(x=x, y=y), torch.matmul, ((2, 3, 4), (2, 4, 5))),
    Case(
        "matmul",
        lambda d, x, y: mb.matmul(x=x, y=y, transpose_x=True, transpose_y=True),
        lambda x, y: torch.einsum("bki,bjk->bij", x, y),
        ((2, 4, 3), (2, 5, 4)),
    ),
    Case(
        "linear",
        lambda d, x: mb.linear(x=x, weight=d(MATRIX), bias=d(weights(7))),
        lambda x: F.linear(x, t(MATRIX), t(weights(7))),
        ((2, 3, 8),),
    ),
    Case(
        "conv",
        lambda d, x: mb.conv(x=x, weight=d(DENSE), bias=d(BIAS), strides=[2, 2], pad_type="valid"),
        lambda x: F.conv2d(x, t(DENSE), t(BIAS), 2),
    ),
    Case(
        "conv",
        lambda d, x: mb.conv(x=x, weight=d(DEPTHWISE), pad_type="custom", pad=[1, 2, 0, 3], groups=4),
        lambda x: F.conv2d(F.pad(x, (0, 3, 1, 2)), t(DEPTHWISE), groups=4),
    ),
    Case(
        "conv",
        lambda d, x: mb.conv(x=x, weight=d(DENSE), dilations=[2, 3], pad_type="custom", pad=[2, 2, 2, 2]),
        lambda x: F.conv2d(x, t(DENSE), padding=2, dilation=(2, 3)),
    ),
    Case(
        "conv",
        lambda d, x: mb.conv(x=x, weight=d(DENSE[:, :, :, 0].copy()), pad_type="custom", pad=[1, 1]),
        lambda x: F.conv1d(x, t(DENSE[:, :, :, 0].copy()), padding=1),
        ((1, 4, 9),),
    ),
    Case(
        "conv_transpose",
        lambda d, x: mb.conv_transpose(
            x=x, weight=d(UP), bias=d(weights(3)), strides=[2, 2], pad_type="custom", output_shape=[1, 3, 12, 16]
        ),
        lambda x: F.conv_transpose2d(x, t(UP), t(weights(3)), 2),
    ),
    Case(
        "conv_transpose",
        lambda d, x: mb.conv_transpose(
            x=x, weight=d(weights(4, 2, 3, 3)), strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1], groups=2
        ),
        lambda x: F.conv_transpose2d(x, t(weights(4, 2, 3, 3)), stride=2, padding=1, groups=2),
    ),
    Case(
        "reduce_mean",
        lambda d, x: mb.reduce_mean(x=x, axes=[2, 3], keep_dims=True),
        lambda x: F.adaptive_avg_pool2d(x, 1),
    ),
    Case("reduce_mean", lambda d, x: mb.reduce_mean(x=x, axes=[-1], keep_dims=False), lambda x: x.mean(-1)),
    Case(
        "avg_pool",
        lambda d, x: mb.avg_pool(x=x, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid"),
        lambda x: F.avg_pool2d(x, 2),
    ),
    Case(
        "avg_pool",
        lambda d, x: mb.avg_pool(
            x=x,
            kernel_sizes=[3, 3],
            strides=[1, 1],
            pad_type="custom",
            pad=[1, 1, 1, 1],
            exclude_padding_from_average=True,
        ),
        lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    ),
    Case("pixel_shuffle", lambda d, x: mb.pixel_shuffle(x=x, upscale_factor=2), lambda x: F.pixel_shuffle(x, 2)),
    Case("reshape", lambda d, x: mb.reshape(x=x, shape=[1, 4, -1]), lambda x: x.flatten(2)),
    Case("transpose", lambda d, x: mb.transpose(x=x, perm=[0, 2, 3, 1]), lambda x: x.movedim(1, 3)),
    Case("expand_dims", lambda d, x: mb.expand_dims(x=x, axes=[0, -1]), lambda x: x[None, ..., None], ((2, 3),)),
    Case("squeeze", lambda d, x: mb.squeeze(x=x, axes=[0, 3]), lambda x: x[0, :, :, 0], ((1, 2, 3, 1),)),
    Case(
        "concat",
        lambda d, x, y: mb.concat(values=[x, y], axis=1),
        lambda x, y: torch.cat([x, y], 1),
        ((1, 2, 3), (1, 4, 3)),
    ),
    Case(
        "slice_by_index",
        lambda d, x: mb.slice_by_index(
            x=x,
            begin=[0, 1, 2, 1],
            end=[1, 4, -1, 8],
            stride=[1, 2, 1, 3],
            begin_mask=[True, False, False, False],
            end_mask=[True, False, False, True],
        ),
        lambda x: x[:, 1:4:2, 2:-1, 1::3],
    ),
    Case(
        "slice_by_index",
        lambda d, x: mb.slice_by_index(
            x=x, begin=[0, 2, 0, 0], end=[1, 3, 6, 8], squeeze_mask=[False, True, False, False]
        ),
        lambda x: x[:, 2],
    ),
    Case(
        "slice_by_size",
        lambda d, x: mb.slice_by_size(x=x, begin=[0, 1, 2, 0], size=[1, 2, -1, 3]),
        lambda x: x[:, 1:3, 2:, :3],
    ),
    # Scales are powers of two: halves occur, and both round them to even.
    Case(
        "quantize",
        lambda d, x: mb.dequantize(
            input=mb.quantize(input=x, scale=d(1 / 64), zero_point=np.uint8(90), output_dtype="uint8"),
            scale=d(1 / 64),
            zero_point=np.uint8(90),
        ),
        lambda x: torch.fake_quantize_per_tensor_affine(x, 1 / 64, 90, 0, 255),
    ),
    Case(
        "dequantize",
        lambda d, x: mb.dequantize(
            input=mb.quantize(input=x, scale=d(SCALES / 64), output_dtype="int8", axis=1), scale=d(SCALES / 64), axis=1
        ),
        lambda x: torch.fake_quantize_per_channel_affine(
            x, t(SCALES / 64), torch.zeros(4, dtype=torch.int32), 1, -128, 127
        ),
    ),
    Case(
        "constexpr_affine_dequantize",
        lambda d, x: mb.add(
            x=x, y=mb.constexpr_affine_dequantize(quantized_data=CODES, zero_point=ZEROS, scale=d(SCALES), axis=0)
        ),
        lambda x: x + t(SCALES[:, None] * (CODES.astype(np.float32) - ZEROS[:, None])),
        ((4, 6),),
    ),
    Case(
        "constexpr_blockwise_shift_scale",
        lambda d, x: mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=CODES, scale=d(BLOCKS))),
        lambda x: x + t(np.kron(BLOCKS, np.ones((2, 3), np.float32)) * CODES),
        ((4, 6),),
        ios=18,
    ),
]


def wrap(case: Case, element: Any) -> Callable[..., Any]:
    """`mb.program` counts the function's own parameters."""
    if len(case.shapes) == 1:
        return lambda x: case.build(element, x)
    return lambda x, y: case.build(element, x, y)


@pytest.fixture(
    params=[(case, half) for case in CASES for half in (False, True) if not (half and case.name == "cast")],
    ids=lambda p: f"{p[0].name}-{'fp16' if p[1] else 'fp32'}",
)
def built(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[Tensor], Tensor, bool]:
    """A saved operation, inputs, what it should give, and whether in fp16."""
    case, half = request.param
    generator = torch.Generator().manual_seed(0)
    inputs = [(torch.rand(shape, generator=generator) * 6 - 3) for shape in case.shapes]
    inputs = [(i * 128).round() / 128 for i in inputs]  # exact in fp16
    element = (lambda v: np.asarray(v, np.float16)) if half else (lambda v: np.asarray(v, np.float32))
    kind = types.fp16 if half else types.fp32
    path = save(wrap(case, lambda v: element(v)[()]), case.shapes, tmp_path / "a.mlpackage", kind, case.ios)
    return path, inputs, case.expected(*inputs), half


def test_an_operation_gives_what_torch_gives(built: tuple[Path, list[Tensor], Tensor, bool]) -> None:
    path, inputs, expected, half = built
    got = evaluate(path, *inputs)
    assert got.dtype == (torch.float16 if half else torch.float32)
    torch.testing.assert_close(got.float(), expected, rtol=2e-3 if half else 1e-5, atol=2e-3 if half else 1e-5)


@needs_mac
def test_an_operation_gives_what_core_ml_gives(built: tuple[Path, list[Tensor], Tensor, bool]) -> None:
    path, inputs, _, half = built
    names = list(Function(Package.open(path), "main").inputs)
    (got,) = ct.models.MLModel(str(path)).predict({n: i.numpy() for n, i in zip(names, inputs, strict=True)}).values()
    ours = evaluate(path, *inputs).float().numpy()
    np.testing.assert_allclose(
        ours, np.asarray(got, np.float32), rtol=4e-3 if half else 1e-4, atol=4e-3 if half else 1e-4
    )


def test_every_operation_is_tried() -> None:
    assert {case.name for case in CASES} == set(OPERATIONS)


def test_each_result_is_rounded_once_to_fp16(tmp_path: Path) -> None:
    ones = np.ones((1, 3001), np.float16)
    path = save(lambda x: mb.linear(x=x, weight=ones), [(1, 3001)], tmp_path / "a.mlpackage", types.fp16)
    # A sum kept in fp16 would stop at 2048; 3001 itself lies between two fp16 numbers.
    assert evaluate(path, torch.ones(1, 3001)).item() == 3000
    assert evaluate(path, torch.ones(1, 3001), single=True).item() == 3001


def test_fp16_overflows_as_it_does(tmp_path: Path) -> None:
    path = save(lambda x, y: mb.mul(x=x, y=y), [(1,), (1,)], tmp_path / "a.mlpackage", types.fp16)
    assert evaluate(path, torch.tensor([300.0]), torch.tensor([300.0])).item() == float("inf")


def test_an_unknown_operation_is_refused_by_name(tmp_path: Path) -> None:
    path = save(
        lambda x: mb.erf(x=mb.gelu(x=mb.relu(x=x), mode="EXACT")), [(1, 4)], tmp_path / "a.mlpackage", types.fp32
    )
    with pytest.raises(BundleError, match="uses erf, gelu, which this burnish does not evaluate"):
        evaluate(path, torch.zeros(1, 4))


def test_unknown_padding_is_refused_by_name(tmp_path: Path) -> None:
    path = save(lambda x: mb.conv(x=x, weight=DENSE, pad_type="same"), [(1, 4, 6, 8)], tmp_path / "a.mlpackage")
    with pytest.raises(BundleError, match=r"conv .*pad_type 'same' is not evaluated"):
        evaluate(path, torch.zeros(1, 4, 6, 8))


def test_inputs_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = save(lambda x: mb.relu(x=x), [(1, 4)], tmp_path / "a.mlpackage")
    with pytest.raises(BackendError, match=r"input x has shape \(1, 5\); expected \(1, 4\)"):
        evaluate(path, torch.zeros(1, 5))


# --- damage ---


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with digests: a convolution, a quantiser, an int8 weight."""

    def build(x: Any) -> Any:
        x = mb.conv(x=x, weight=weights(8, 4, 3, 3), pad_type="custom", pad=[1, 1, 1, 1])
        x = mb.quantize(input=x, scale=np.float32(0.02), output_dtype="int8")
        x = mb.dequantize(input=x, scale=np.float32(0.02))
        codes = mb.constexpr_blockwise_shift_scale(
            data=np.arange(64, dtype=np.int8).reshape(8, 8, 1, 1), scale=weights(8, 1, 1, 1)
        )
        return mb.reshape(x=mb.conv(x=x, weight=codes), shape=[1, 8, -1])

    path = save(build, [(1, 4, 6, 6)], tmp_path_factory.mktemp("sealed") / "a.mlpackage", ios=18)
    seal(path)
    return path


@pytest.fixture
def package(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "a.mlpackage"))


PICTURE = torch.rand(1, 4, 6, 6, generator=torch.Generator().manual_seed(3))


def unseal(path: Path) -> None:
    manifest = json.loads((path / "Manifest.json").read_text())
    for item in manifest["itemInfoEntries"].values():
        item["description"] = item["description"].partition(",")[0]
    (path / "Manifest.json").write_text(json.dumps(manifest))


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1 << (position % 8)
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("name", [MODEL, WEIGHTS])
def test_any_changed_byte_is_refused(package: Path, name: str) -> None:
    whole = (package / name).read_bytes()
    for position in random.Random(0).sample(range(len(whole)), 40):
        flip(package / name, position)
        with pytest.raises(BundleError, match=r"damaged: its hash differs from the manifest's"):
            Package.open(package)
        (package / name).write_bytes(whole)


def test_a_changed_manifest_is_refused_or_harmless(package: Path, sealed: Path) -> None:
    expected, file = evaluate(sealed, PICTURE), package / "Manifest.json"
    whole = file.read_bytes()
    for position in range(len(whole)):
        flip(file, position)
        with contextlib.suppress(BundleError):
            assert torch.equal(evaluate(package, PICTURE), expected)
        file.write_bytes(whole)


@pytest.mark.parametrize("name", ["Manifest.json", MODEL, WEIGHTS])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.98])
@pytest.mark.parametrize("with_digests", [True, False])
def test_a_truncated_file_is_refused(package: Path, name: str, share: float, with_digests: bool) -> None:
    if not with_digests:
        unseal(package)
    data = (package / name).read_bytes()
    (package / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BundleError) as error:
        evaluate(package, PICTURE)
    assert "\n" not in str(error.value)


def test_without_digests_damage_never_gets_further_than_an_error(package: Path) -> None:
    unseal(package)
    choose = random.Random(1)
    for name in (MODEL, WEIGHTS):
        whole = (package / name).read_bytes()
        for position in choose.sample(range(len(whole)), 150):
            flip(package / name, position)
            with contextlib.suppress(BundleError, BackendError):
                assert evaluate(package, PICTURE).numel() < 1 << 16
            (package / name).write_bytes(whole)


def test_a_missing_file_is_named(package: Path) -> None:
    (package / MODEL).unlink()
    with pytest.raises(BundleError, match=r"lacks com.apple.CoreML/model.mlmodel"):
        Package.open(package)


def test_a_path_out_of_the_package_is_refused(package: Path) -> None:
    file = package / "Manifest.json"
    file.write_text(file.read_text().replace("com.apple.CoreML/weights", "../../../weights"))
    with pytest.raises(BundleError, match="leads out of the package"):
        Package.open(package)


def test_a_link_out_of_the_package_is_refused(package: Path, tmp_path: Path) -> None:
    shutil.move(package / WEIGHTS, tmp_path / "elsewhere.bin")
    (package / WEIGHTS).symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(BundleError, match="leads out of the package"):
        Package.open(package)


def change_spec(path: Path, change: Callable[[Any], None]) -> None:
    unseal(path)
    spec: Any = ct.utils.load_spec(str(path))
    change(spec)
    (path / MODEL).write_bytes(spec.SerializeToString())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda spec: setattr(spec, "specificationVersion", 11), "specification version 11; this burnish reads 8"),
        (lambda spec: setattr(spec.mlProgram, "version", 2), "expected an ML program of version 1"),
        (lambda spec: setattr(spec.mlProgram.functions["main"], "opset", "CoreML9"), "operator set 'CoreML9'"),
        (lambda spec: spec.neuralNetwork.SetInParent(), "holds neuralNetwork; expected an ML program"),
    ],
)
def test_other_versions_are_refused(package: Path, change: Callable[[Any], None], reason: str) -> None:
    change_spec(package, change)
    with pytest.raises(BundleError, match=reason):
        evaluate(package, PICTURE)


def test_another_version_of_the_manifest_is_refused(package: Path) -> None:
    file = package / "Manifest.json"
    file.write_text(file.read_text().replace('"1.0.0"', '"2.0.0"'))
    with pytest.raises(BundleError, match=r"format '2.0.0'; this burnish reads 1.0.0"):
        Package.open(package)


def test_another_version_of_the_weights_is_refused(package: Path) -> None:
    unseal(package)
    data = bytearray((package / WEIGHTS).read_bytes())
    data[4] = 3
    (package / WEIGHTS).write_bytes(bytes(data))
    with pytest.raises(BundleError, match="storage version 3; this burnish reads 2"):
        evaluate(package, PICTURE)


def operation(spec: Any, kind: str) -> Any:
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    return next(o for o in block.operations if o.type == kind)


def test_a_huge_shape_is_refused_before_anything_is_allocated(package: Path) -> None:
    def change(spec: Any) -> None:
        operation(spec, "conv").outputs[0].type.tensorType.dimensions[2].constant.size = 1 << 40

    change_spec(package, change)
    with pytest.raises(BundleError, match="expected at most 1073741824 elements"):
        evaluate(package, PICTURE)


def test_a_reference_to_nothing_is_refused(package: Path) -> None:
    def change(spec: Any) -> None:
        operation(spec, "reshape").inputs["x"].arguments[0].name = "nothing"

    change_spec(package, change)
    with pytest.raises(BundleError, match="reads 'nothing', which nothing before it computes"):
        evaluate(package, PICTURE)
