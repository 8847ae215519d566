"""Masks: elements that say "not here" by a number no activation has, such as minus infinity before a softmax."""

from __future__ import annotations

MASK_MAGNITUDE = 1e30
"""Elements at least this large are masks, not activations: no grid can hold both, so ranges leave them out."""

MASK_ROOM = 100.0
"""How far below everything else a mask lies at least in int8; the exponential of -100 is nothing."""
