"""List the operations of the IR."""

from __future__ import annotations

from ..console import print_json, print_table
from ..options import JsonFlag


def command(json: JsonFlag = False) -> None:
    """List the operations of the IR: when they may stand in a graph, and how they are quantized."""
    from inspect import getdoc

    from ...ir.op import ExactOp, all_ops, attribute_types

    ops = [
        {
            "name": op.name,
            "stage": op.stage.value,
            "quantization": op.quantization.value,
            "exact": issubclass(op, ExactOp),
            "operands": list(op.operands),
            "attributes": list(attribute_types(op)),
            "summary": (getdoc(op) or "").partition("\n")[0],
        }
        for op in all_ops()
    ]
    if json:
        print_json({"ops": ops})
        return
    rows = [(op["name"], op["stage"], op["quantization"], op["summary"]) for op in ops]
    print_table(("op", "stage", "quantized as", "what it is"), rows)
