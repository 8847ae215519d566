/* Runs a bundle on made-up inputs: ./repeat WEIGHTS TIMES. The prefix comes from the compiler's command line:
 * -DHEADER='"net.h"' -DNAME(x)=net_##x. One thread, so that an instruction count belongs to the network alone. Writes
 * the name of each step's layer. */
#include HEADER

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 16 };

static void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static void *allocate(size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!memory) fail("out of memory");
  memset(memory, 0, bytes);
  return memory;
}

int main(int argc, char **argv) {
  void *inputs[MOST], *outputs[MOST];
  NAME(context) *context;
  NAME(options) options = {.threads = 1};
  int i, times;

  if (argc != 3) fail("usage: repeat WEIGHTS TIMES");
  options.weights_path = argv[1];
  times = atoi(argv[2]);
  if (NAME(create)(&context, &options)) fail(NAME(last_error)());
  for (i = 0; i < NAME(steps)(context, 0); i++) puts(NAME(step_label)(context, 0, i));
  for (i = 0; i < MOST && NAME(input)(0, i); i++) {
    const NAME(tensor) *tensor = NAME(input)(0, i);
    inputs[i] = allocate(tensor->bytes);
    /* A ramp of -1..1 in floats; integers stay zero, which is an index that every table has. */
    for (size_t k = 0; k * sizeof(float) < tensor->bytes && tensor->dtype == 0; k++)
      ((float *)inputs[i])[k] = (float)(k % 255) / 127.0f - 1.0f;
  }
  for (i = 0; i < MOST && NAME(output)(0, i); i++) outputs[i] = allocate(NAME(output)(0, i)->bytes);
  while (times-- > 0)
    if (NAME(run)(context, (const void *const *)inputs, outputs, NULL)) fail(NAME(last_error)());
  NAME(destroy)(context);
  return 0;
}
