"""Kernel specifications; the emitters beside them in `emit` are imported only in the code generation process."""
