"""Passes: golden texts, the rewriter, pipelines, calibration."""
