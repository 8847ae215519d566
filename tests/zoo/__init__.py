"""Real trained networks and real inputs for tests and benchmarks: ``from zoo import zoo_model``.

Weights and data come out of ordinary packages (``models.txt``); the torch networks are defined here, under the
names that their weights carry. A test whose package is missing is skipped, or fails when OCTAVO_REQUIRE_MODELS=1.
"""

from .registry import MODELS, ZooModel, zoo_model

__all__ = ["MODELS", "ZooModel", "zoo_model"]
