"""Kernel generation through Apache TVM; importing this package does not import tvm."""
