"""One batch of an activation, as statistics see it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from .importance import Importance
from .masks import MASK_MAGNITUDE


@dataclass(frozen=True)
class Elements:
    """Finite elements without masks, their extremes, and what several statistics would compute alike."""

    x: torch.Tensor
    low: float = math.inf
    high: float = -math.inf
    masked: bool = False
    """Whether there were masks of minus infinity."""
    importance: Importance | None = None
    _bins: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, x: torch.Tensor, importance: Importance | None = None) -> Elements:
        """What there is to see in ``x`` (float32); ``importance`` says which channels matter more.

        Raises:
            FloatingPointError: it holds a NaN.
        """
        if x.numel() == 0:
            return cls(x)
        low, high = (float(extreme) for extreme in torch.aminmax(x))
        if math.isnan(low) or math.isnan(high):
            raise FloatingPointError
        if low > -MASK_MAGNITUDE and high < MASK_MAGNITUDE:
            return cls(x, low, high, importance=importance)
        masked, x = low <= -MASK_MAGNITUDE, x[x.abs() < MASK_MAGNITUDE]
        if x.numel() == 0:
            return cls(x, masked=masked)
        low, high = (float(extreme) for extreme in torch.aminmax(x))
        return cls(x, low, high, masked)

    def __bool__(self) -> bool:
        return self.x.numel() > 0

    def bins(self, exponent: int) -> np.ndarray:
        """floor(x / 2**exponent) of every element, flat, int32."""
        if exponent not in self._bins:
            # torch converts to int32 eight times as fast as to int64.
            scaled = torch.floor(self.x.reshape(-1) * math.ldexp(1.0, -exponent))
            self._bins[exponent] = scaled.to(torch.int32).numpy()
        return self._bins[exponent]

    @cached_property
    def weights(self) -> np.ndarray | None:
        """The importance of every element, flat: whole numbers as float64; None when all count alike."""
        return self.importance.spread(self.x) if self.importance else None
