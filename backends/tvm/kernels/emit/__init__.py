"""Emitters: from a kernel specification to a TIR function. Every module here imports tvm."""
