"""Runs a network by ONNX Runtime: ``python repeat_peer.py PACKAGES MODEL INPUTS TIMES ANSWER``.

This is the guest under QEMU, in a Python of its own that has neither this project nor its packages. One thread, so that
an instruction count belongs to the network alone. Writes the first output of the last call.
"""

from __future__ import annotations

import sys


def main(packages: str, model: str, inputs: str, times: str, answer: str) -> None:
    sys.path.insert(0, packages)
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with np.load(inputs) as arrays:
        feeds = dict(zip([value.name for value in session.get_inputs()], arrays.values(), strict=True))
    outputs = [session.run(None, feeds) for _ in range(int(times))]
    np.save(answer, np.asarray(outputs[-1][0]))


main(*sys.argv[1:])
