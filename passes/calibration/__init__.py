"""Calibration: statistics of activations in constant memory, and the ranges they suggest."""
