"""Which inputs become images, what is said of others, and that ranges serve with and without."""

from __future__ import annotations

import numpy as np
import octavo
import pytest
from octavo.backends.preprocess import PRESETS, Preprocess
from octavo.ir import DType, Graph, Tensor, run_graph
from octavo.ir.errors import ParseError, PassError, UsageError
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.conv import Conv
from octavo.ir.ops.elementwise import Relu
from octavo.ir.ops.image import NormalizeImage
from octavo.ir.ops.quantize import Observer
from octavo.ir.types import TensorType, f32
from octavo.passes import Pipeline
from octavo.passes.image_input import ImageInput
from PIL import Image


def taking(**types: TensorType) -> Graph:
    graph = Graph("net")
    values = [graph.add_input(name, type) for name, type in types.items()]
    graph.set_outputs([graph.insert(Relu(), [value]).output for value in values], [f"{name}_out" for name in types])
    return graph


def convolution() -> Graph:
    graph = Graph("net")
    x = graph.add_input("x", f32(1, 3, 12, 10))
    rng = np.random.default_rng(0)
    weight = graph.insert(Constant(Tensor.of(rng.normal(0, 0.2, (4, 3, 3, 3)).astype(np.float32))), []).output
    graph.set_outputs([graph.insert(Conv((1, 1), ((1, 1), (1, 1)), (1, 1), 1), [x, weight]).output], ["y"])
    return graph


@pytest.mark.parametrize(
    ("types", "text", "message", "hint"),
    [
        ({"x": f32(1, 3, 8)}, "image-input", "x is f32[1x3x8], which has 3 dimensions", None),
        ({"x": f32(1, 5, 8, 8)}, "image-input", "which has 5 channel(s) in NCHW order", None),
        ({"x": f32(1, 8, 8, 3)}, "image-input", "which has 8 channel(s) in NCHW order", "layout=NHWC"),
        ({"x": f32(1, 3, 8, 8)}, "image-input{layout=NHWC}", "which has 8 channel(s) in NHWC order", "layout=NCHW"),
        ({"x": f32(1, 1, 8, 8)}, "image-input{mean=[1;2;3]}", "which has 1 channel(s)", None),
        ({"x": TensorType(DType.U8, (1, 3, 8, 8))}, "image-input", "which is not float", None),
        ({"a": f32(1, 3, 8, 8), "b": f32(1, 1, 8, 8)}, "image-input", "several inputs can be the image: a", "input=a"),
        ({"a": f32(1, 3, 8, 8)}, "image-input{input=b}", "no input is named b", None),
    ],
)
def test_what_is_no_image_is_named(types: dict[str, TensorType], text: str, message: str, hint: str | None) -> None:
    with pytest.raises(PassError) as raised:
        Pipeline.parse(text).run(taking(**types))
    assert message in raised.value.what
    assert (hint or "") in (raised.value.hint or "")


def test_a_frozen_graph_is_refused() -> None:
    frozen = octavo.optimize(convolution(), ranges={"x": (0.0, 1.0)})
    with pytest.raises(PassError, match="frozen"):
        Pipeline.parse("image-input").run(frozen)


@pytest.mark.parametrize(
    "options", ["mean=[]", "std=[0]", "scale=0", "std=[]", "mean=[1;2],std=[1;2;3]", "mean=[inf]", "layout=CHWN"]
)
def test_numbers_that_cannot_normalize_are_refused(options: str) -> None:
    with pytest.raises(ParseError):
        Pipeline.parse(f"image-input{{{options}}}")


def test_it_comes_first() -> None:
    with pytest.raises(UsageError, match="image-input stands behind fuse"):
        Pipeline.parse("fuse,image-input,int8")


def test_the_graph_that_data_are_for_is_a_copy() -> None:
    graph = taking(x=f32(1, 3, 8, 6))
    entered = Pipeline.parse("image-input,int8").entered(graph)
    assert entered.inputs[0].type == TensorType(DType.U8, (1, 8, 6, 3))
    assert graph.inputs[0].type == f32(1, 3, 8, 6)
    assert Pipeline.parse("int8").entered(graph) is graph


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_normalization_is_that_of_preprocessing(color: str, layout: str) -> None:
    numbers = "mean=0.4,std=0.3" if color == "gray" else "mean=0.485/0.456/0.406,std=0.229/0.224/0.225"
    steps = Preprocess.parse(f"crop=9,{numbers},color={color},layout={layout}")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 14, 3)).astype(np.uint8))
    want = steps.apply(image)
    entrance = ImageInput(steps.mean, steps.std, steps.scale, steps.layout)
    graph = taking(x=f32(*want.shape))
    graph.set_outputs(graph.inputs, ["x"])
    Pipeline((entrance,)).run(graph)
    pixels = steps.pixels().apply(image)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(run_graph(graph, {"x": pixels})["x"], want)
    np.testing.assert_array_equal(entrance.numbers(pixels), want)
    assert entrance.model_shape(pixels.shape) == want.shape


def test_ranges_have_the_name_of_the_input() -> None:
    """So those of a network of floats serve one of images, and the other way round."""
    entrance = "image-input{mean=[0.5],std=[0.25]}"
    images = [np.random.default_rng(seed).integers(0, 256, (1, 12, 10, 3)).astype(np.uint8) for seed in range(3)]
    graph = convolution()
    found = octavo.optimize(graph, f"{entrance},prepare,observe,calibrate", calibration=images)
    (key,) = [node.op.key for node in found.nodes if isinstance(node.op, Observer)][:1]
    assert key == "x"
    frozen = octavo.optimize(graph, f"{entrance},int8", ranges={"x": (-2.0, 2.0)})
    assert not any(isinstance(node.op, NormalizeImage) for node in frozen.nodes)


def test_presets_leave_pixels() -> None:
    pixels = PRESETS["imagenet"].pixels()
    assert str(pixels) == "resize=256,crop=224,layout=NHWC,dtype=uint8"
    assert Preprocess.parse(str(pixels)) == pixels
