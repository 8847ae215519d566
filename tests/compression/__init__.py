"""Compresses networks that are trained here: ``python -m compression run STAGE...`` with ``tests`` on PYTHONPATH.

Every run writes its figures into ``results/`` as JSON and its network into ``checkpoints/``, so that the figures can be
measured again without training.
"""
