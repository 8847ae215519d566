"""ONNX Runtime as a judge of numbers."""

from __future__ import annotations

import onnxruntime


def exact_options(threads: int = 1) -> onnxruntime.SessionOptions:
    """Options of a session whose products of bytes do not saturate: without VNNI they do by default, to be faster."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options
