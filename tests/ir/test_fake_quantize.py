"""Gradients of fake quantization: straight through to what is on the grid, and the learned step size's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from octavo.ir.ops.quantize import FakeQuantize

LAYOUTS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "rows": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "a part": lambda x: torch.cat([x, x], 2)[:, :, 1 : 1 + x.shape[2]],
    "transposed": lambda x: x.transpose(1, 3).contiguous().transpose(1, 3),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("op", "shape", "zero_points"),
    [
        (FakeQuantize(), (), [-17.0]),
        (FakeQuantize(-7, 7, axis=0), (4,), [0.0] * 4),
        (FakeQuantize(axis=1), (6,), [3.0, -128.0, 0.0, 127.0, 0.0, 9.0]),
        (FakeQuantize(-1, 1, axis=0, step=2), (4,), [0.0] * 4),
    ],
)
def test_gradients_are_those_of_learned_step_sizes(
    op: FakeQuantize, shape: tuple[int, ...], zero_points: list[float], layout: str
) -> None:
    random = torch.Generator().manual_seed(1)
    x = LAYOUTS[layout](torch.randn(4, 6, 5, 5, generator=random) * (op.high + 1)).requires_grad_(True)
    scale = (torch.rand(shape, generator=random) + 0.3).requires_grad_()
    zero = torch.tensor(zero_points).reshape(shape)
    gradient = torch.randn(x.shape, generator=random)
    y = op.run(x, scale, zero)
    found, of_scale = torch.autograd.grad(y, (x, scale), gradient)

    axes = [1, 1, 1, 1]
    if op.axis is not None:
        axes[op.axis] = -1
    s, z = (v.detach().double().numpy().reshape(axes) for v in (scale, zero))
    real, given = x.detach().double().numpy(), gradient.double().numpy()
    grid = real / s
    levels = y.detach().double().numpy() / s
    inside = (op.low - z - op.step / 2 < grid) & (grid < op.high - z + op.step / 2)
    assert inside.any()
    assert not inside.all()
    np.testing.assert_allclose(found, np.where(inside, given, 0), rtol=1e-6)
    # d (round(x / s) * s) / d s = round(x / s) - x / s inside, and the outermost level outside.
    each = given * np.where(inside, levels - grid, levels)
    kept = tuple(axis for axis in range(4) if axis != op.axis)
    np.testing.assert_allclose(of_scale, each.sum(kept), rtol=1e-4, atol=1e-3 * op.high)


def test_infinity_leaves_the_gradient_of_the_scale_finite() -> None:
    scale = torch.tensor(0.5, requires_grad=True)
    y = FakeQuantize().run(torch.tensor([-torch.inf, 0.26, torch.inf]), scale, torch.tensor(0.0))
    (gradient,) = torch.autograd.grad(y.sum(), scale)
    assert float(gradient) == pytest.approx(-128 + (1 - 0.52) + 127)
