"""The C example that lies in every bundle: read raw inputs, run, print the five largest outputs."""

from __future__ import annotations

from .program import Program, TensorSpec

_C_TYPES = {
    "float32": "float",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "bool": "uint8_t",
}

_TEMPLATE = """\
/* Runs @PREFIX@ once: reads one raw file per input, prints the five largest values of output "@OUTPUT@".
 *
@USAGE@
 *
 * Build beside the bundle's files, with the shared library or with the relocatable object:
 *   cc example.c -o example -L. -l@PREFIX@ -Wl,-rpath,'$ORIGIN'
 *   cc example.c @PREFIX@.o -o example -lm -ldl -pthread
 */
#include "@PREFIX@.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef @CTYPE@ element;

static const element *values;

static int larger_first(const void *left, const void *right) {
  element a = values[*(const size_t *)left], b = values[*(const size_t *)right];
  return (a < b) - (a > b);
}

static void fail(const char *what) {
  fprintf(stderr, "%s\\n", what);
  exit(1);
}

/* Aligned memory; sizes of aligned_alloc are multiples of the alignment. */
static void *allocate(size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!memory) fail("out of memory");
  return memory;
}

static void *read_tensor(const char *path, size_t bytes) {
  void *memory = allocate(bytes);
  FILE *file = fopen(path, "rb");
  if (!file) {
    perror(path);
    exit(1);
  }
  if (fread(memory, 1, bytes, file) != bytes || fgetc(file) != EOF) {
    fprintf(stderr, "%s does not hold exactly %zu bytes\\n", path, bytes);
    exit(1);
  }
  fclose(file);
  return memory;
}

/* Line `wanted` of labels.txt, when the bundle has it. */
static void print_label(size_t wanted) {
  char line[256];
  FILE *file = fopen("labels.txt", "r");
  if (!file) return;
  for (size_t i = 0; i <= wanted && fgets(line, sizeof line, file); i++)
    if (i == wanted) printf("  %.*s", (int)strcspn(line, "\\n"), line);
  fclose(file);
}

int main(int argc, char **argv) {
  void *inputs[@INPUTS@], *outputs[@OUTPUTS@];
  @PREFIX@_context *context;

  if (argc != 1 + @INPUTS@) fail("expected one file for each of @INPUTS@ inputs");
  for (int i = 0; i < @INPUTS@; i++) inputs[i] = read_tensor(argv[1 + i], @PREFIX@_input(0, i)->bytes);
  for (int i = 0; i < @OUTPUTS@; i++) outputs[i] = allocate(@PREFIX@_output(0, i)->bytes);

  if (@PREFIX@_create(&context, NULL)) fail(@PREFIX@_last_error());
  if (@PREFIX@_run(context, (const void *const *)inputs, outputs, NULL)) fail(@PREFIX@_last_error());

  size_t count = @PREFIX@_output(0, 0)->bytes / sizeof(element);
  size_t *order = allocate(count * sizeof *order);
  values = outputs[0];
  for (size_t i = 0; i < count; i++) order[i] = i;
  qsort(order, count, sizeof *order, larger_first);
  for (size_t i = 0; i < count && i < 5; i++) {
    printf("%zu  %g", order[i], (double)values[order[i]]);
    print_label(order[i]);
    printf("\\n");
  }

  @PREFIX@_destroy(context);
  for (int i = 0; i < @INPUTS@; i++) free(inputs[i]);
  for (int i = 0; i < @OUTPUTS@; i++) free(outputs[i]);
  free(order);
  return 0;
}
"""


def example_program(program: Program) -> str:
    """C source of a complete program that uses the bundle."""
    first = program.signatures[0]
    files = " ".join(f"INPUT{number}.raw" for number, _ in enumerate(first.inputs))
    usage = [f"./example {files}", *(_describe(number, spec) for number, spec in enumerate(first.inputs))]
    replacements = {
        "@PREFIX@": program.prefix,
        "@OUTPUT@": _comment(first.outputs[0].name),
        "@CTYPE@": _C_TYPES[first.outputs[0].dtype],
        "@INPUTS@": str(len(first.inputs)),
        "@OUTPUTS@": str(len(first.outputs)),
        "@USAGE@": "\n".join(f" *   {line}" for line in usage),
    }
    text = _TEMPLATE
    for token, replacement in replacements.items():
        text = text.replace(token, replacement)
    return text


def _describe(number: int, spec: TensorSpec) -> str:
    extents = " x ".join(map(str, spec.shape)) or "one"
    return f"INPUT{number}.raw: {_comment(spec.name)}, {extents} {spec.dtype}, {spec.bytes} bytes"


def _comment(text: str) -> str:
    """A user's name inside a C comment: it must not end the comment, nor continue the line."""
    return "".join(c if c.isalnum() or c in " _.:-" else "_" for c in text)
