"""Measures accuracy, speed and the cost of compiling: ``python -m benchmarks PART...`` with ``tests`` on PYTHONPATH.

Every part writes what it measured into ``results/`` as JSON; ``docs/accuracy.md``, ``performance.md`` and
``sparsity.md`` are rendered from there and hold no number of another origin.
"""
