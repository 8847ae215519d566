"""The C translation unit of a bundle: the runtime, and the tables and trampolines of one network.

A step becomes a *trampoline*, a C function that resolves the step's references and calls its kernel; a plan becomes a
table of steps that the runtime walks. Kernels live in other objects and see only pointers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .. import runtime
from .features import lookup
from .program import LevelProgram, Place, PlanProgram, Program, Ref, Step, TensorSpec, symbols
from .weights import HEADER_BYTES

TEMPLATE_PREFIX = "octavo_bundle"


@dataclass(frozen=True)
class WeightsLink:
    """How the code finds its weights: their 64-byte header and the bytes that follow.

    ``coded_bytes`` follow the header in a compressed file. ``embedded`` takes header and bytes from the file
    weights.bin in the folder where the compiler runs.
    """

    header: bytes
    data_bytes: int
    embedded: bool = False
    coded_bytes: int | None = None


def public_header(prefix: str) -> str:
    """The text of ``PREFIX.h``."""
    return _rename(runtime.read(runtime.PUBLIC_HEADER), prefix)


def translation_unit(program: Program, weights: WeightsLink, build: str) -> str:
    """The whole C program but the kernels; needs ``PREFIX.h`` beside it. ``build`` identifies code and weights."""
    parts = [
        "#define _GNU_SOURCE",
        f'#include "{program.prefix}.h"',
        f"#define OCTAVO_EMBEDDED_WEIGHTS {int(weights.embedded)}",
        f"#define OCTAVO_CODED_WEIGHTS {int(weights.coded_bytes is not None)}",
        *(_rename(runtime.read(name), program.prefix) for name in runtime.BEFORE_TABLES),
        _rename(tables(program, weights, build), program.prefix),
        *(_rename(runtime.read(name), program.prefix) for name in runtime.AFTER_TABLES),
    ]
    return "\n".join(parts)


def tables(program: Program, weights: WeightsLink, build: str) -> str:
    """Descriptors, weights, and for each level its kernels' declarations, trampolines, plans and features."""
    first = program.signatures[0]
    counts = f"PLANS = {len(program.signatures)}, INPUTS = {len(first.inputs)}, OUTPUTS = {len(first.outputs)}"
    lines = [
        f"enum {{ {counts}, LEVEL_COUNT = {len(program.levels)} }};",
        f"static const char BUILD[] = {c_string(build)};",
        *_weights(weights),
        *_descriptors("INPUT", [signature.inputs for signature in program.signatures]),
        *_descriptors("OUTPUT", [signature.outputs for signature in program.signatures]),
    ]
    for number, level in enumerate(program.levels):
        lines += _level(program, level, f"level{number}")
    rows = [_level_row(level, f"level{number}") for number, level in enumerate(program.levels)]
    lines += ["static const struct level LEVELS[] = {", *rows, "};", ""]
    return "\n".join(lines)


def c_string(text: str) -> str:
    """A C string literal of printable ASCII: the rest becomes octal escapes, which end after three digits."""
    octets = text.encode("utf-8")
    return '"' + "".join(chr(b) if 32 <= b < 127 and b not in b'"\\?' else f"\\{b:03o}" for b in octets) + '"'


def _rename(text: str, prefix: str) -> str:
    return text.replace(TEMPLATE_PREFIX.upper(), prefix.upper()).replace(TEMPLATE_PREFIX, prefix)


def _weights(weights: WeightsLink) -> list[str]:
    assert len(weights.header) == HEADER_BYTES
    sizes = [
        f"#define WEIGHTS_BYTES {weights.data_bytes}ull",
        f"#define WEIGHTS_STORED_BYTES {weights.data_bytes if weights.coded_bytes is None else weights.coded_bytes}ull",
    ]
    if weights.embedded:
        name = f"{TEMPLATE_PREFIX}_embedded_weights"
        return [
            *sizes,
            f'extern const uint8_t {name}[] __attribute__((visibility("hidden")));',
            "__asm__(",
            f'  ".section .rodata\\n.balign 64\\n.globl {name}\\n.hidden {name}\\n{name}:\\n"',
            '  ".incbin \\"weights.bin\\"\\n.balign 64\\n.previous\\n");',
            f"#define EMBEDDED_WEIGHTS {name}",
        ]
    octets = ", ".join(str(octet) for octet in weights.header)
    return [*sizes, f"static const uint8_t WEIGHTS_HEADER_BYTES[] = {{{octets}}};"]


def _descriptors(kind: str, groups: Sequence[Sequence[TensorSpec]]) -> Iterable[str]:
    for plan, group in enumerate(groups):
        for index, spec in enumerate(group):
            shape = ", ".join(str(extent) for extent in spec.shape) or "1"
            yield f"static const int64_t {kind}_SHAPE_{plan}_{index}[] = {{{shape}}};"
    yield f"static const octavo_bundle_tensor {kind}_TENSORS[PLANS][{kind}S] = {{"
    for plan, group in enumerate(groups):
        yield "  {"
        for index, spec in enumerate(group):
            yield f"    {{{_descriptor(spec, f'{kind}_SHAPE_{plan}_{index}')}}},"
        yield "  },"
    yield "};"


def _descriptor(spec: TensorSpec, shape: str) -> str:
    dtype = f"OCTAVO_BUNDLE_{spec.dtype.upper()}"
    scale = "0.0f" if spec.scale is None else f"{float(spec.scale).hex()}f"
    fields = (
        c_string(spec.name),
        dtype,
        len(spec.shape),
        shape,
        spec.bytes,
        spec.alignment,
        scale,
        spec.zero_point or 0,
    )
    return ", ".join(str(field) for field in fields)


def _level(program: Program, level: LevelProgram, name: str) -> list[str]:
    lines = ["", f"/* {level.name} */", *_declarations(level)]
    for number, plan in enumerate(level.plans):
        lines += _plan(plan, f"{name}_plan{number}")
    rows = [_plan_row(plan, f"{name}_plan{number}") for number, plan in enumerate(level.plans)]
    lines += [f"static const struct plan {name}_plans[] = {{", *rows, "};"]
    features = [found for feature in level.features if (found := lookup(program.architecture, feature))]
    lines += [f"static const struct feature {name}_features[] = {{"]
    lines += [f"  {{{c_string(f.name)}, {f.word}, {f.bit}, {f.state:#x}}}," for f in features]
    lines += ["  {0}", "};"]  # an array is never empty
    return lines


def _level_row(level: LevelProgram, name: str) -> str:
    count = f"sizeof {name}_features / sizeof *{name}_features - 1"
    return f"  {{{c_string(level.name)}, {name}_features, {count}, {name}_plans}},"


def _declarations(level: LevelProgram) -> Iterable[str]:
    """Hidden, so that the relocation is direct and the merged symbol never leaves the library."""
    for symbol, arguments in symbols(level).items():
        pointers = "void *, " * arguments
        yield f'extern int32_t {symbol}({pointers}int32_t, int32_t) __attribute__((visibility("hidden")));'


def _plan(plan: PlanProgram, name: str) -> list[str]:
    lines: list[str] = []
    for number, step in enumerate(plan.steps):
        lines += _trampoline(step, f"{name}_step{number}")
    lines.append(f"static const struct step {name}_steps[] = {{")
    for number, step in enumerate(plan.steps):
        lines.append(f"  {{{name}_step{number}, {step.tasks}, {step.grain}, {c_string(step.label)}}},")
    return [*lines, "  {0}", "};"]


def _plan_row(plan: PlanProgram, name: str) -> str:
    return f"  {{{plan.arena_bytes + plan.slack}, {plan.scratch_bytes}, {name}_steps, {len(plan.steps)}}},"


def _trampoline(step: Step, name: str) -> list[str]:
    return [
        f"static int32_t {name}(const struct frame *frame, uint8_t *scratch, int32_t begin, int32_t end) {{",
        "  (void)frame, (void)scratch;",
        *["  int32_t status;"] * bool(step.companions),
        *(f"  if ((status = {_part(companion, step.tasks)})) return status;" for companion in step.companions),
        f"  return {_call(step, 'begin', 'end')};",
        "}",
    ]


def _part(companion: Step, tasks: int) -> str:
    """The part of a companion's tasks that goes with a range of a step's."""
    return _call(companion, *(f"first_of({companion.tasks}, {at}, {tasks})" for at in ("begin", "end")))


def _call(step: Step, begin: str, end: str) -> str:
    return f"{step.symbol}({''.join(f'{_argument(ref)}, ' for ref in step.args)}{begin}, {end})"


def _argument(ref: Ref) -> str:
    """Kernels take plain ``void *``; that they only read inputs and weights is the code generator's promise."""
    match ref.place:
        case Place.INPUT:
            return f"(uint8_t *)(uintptr_t)frame->inputs[{ref.index}] + {ref.offset}"
        case Place.OUTPUT:
            return f"(uint8_t *)frame->outputs[{ref.index}] + {ref.offset}"
        case Place.ARENA:
            return f"frame->arena + {ref.offset}"
        case Place.WEIGHTS:
            return f"(uint8_t *)(uintptr_t)frame->weights + {ref.offset}"
        case Place.SCRATCH:
            return f"scratch + {ref.offset}"
