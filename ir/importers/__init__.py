"""Readers of other people's networks: PyTorch and ONNX."""
