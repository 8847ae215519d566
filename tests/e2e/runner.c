/* Runs bundles of one prefix, each on guarded and poisoned memory.  runner JOBS; a line of JOBS is
 *
 *   LIBRARY WEIGHTS LEVEL FLAGS INPUT.raw... OUTPUT.raw...
 *
 * Every job runs with one thread and with two, on workspaces filled with different bytes, and must answer the same.  Inputs
 * lie in read-only pages; inputs, outputs and workspace end at an inaccessible page.  stderr tells which job is at work, so
 * that a crash has a name; stdout gets a line "NUMBER ok" or "NUMBER what went wrong" per job.
 */
#define _GNU_SOURCE
#include "e2e.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef EMULATE_AMX
int octavo_amx_emulator_install(void);
int octavo_amx_emulator_configured(void);
#endif

enum { MAX_TENSORS = 512, LINE = 1 << 18 };
static const unsigned char POISON[] = {0xA5, 0x3C};

struct guarded {
  unsigned char *base, *data;
  size_t mapped, bytes;
};

static void die(const char *what) {
  perror(what);
  exit(2);
}

/* `bytes` that end at a page without access, or as near before it as `alignment` allows. */
static struct guarded guard(size_t bytes, size_t alignment, unsigned char fill) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + alignment + page - 1) / page * page;
  struct guarded g = {.mapped = body + 2 * page, .bytes = bytes};
  g.base = mmap(NULL, g.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (g.base == MAP_FAILED) die("mmap");
  memset(g.base, fill, page + body);
  g.data = g.base + page + (body - bytes) / alignment * alignment;
  if (mprotect(g.base + page + body, page, PROT_NONE) || mprotect(g.base, page, PROT_NONE)) die("mprotect");
  return g;
}

static void release(struct guarded *g) { munmap(g->base, g->mapped); }

static void read_file(const char *path, struct guarded *g) {
  FILE *file = fopen(path, "rb");
  if (!file || fread(g->data, 1, g->bytes, file) != g->bytes || fgetc(file) != EOF) die(path);
  fclose(file);
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  if (mprotect(g->base + page, g->mapped - 2 * page, PROT_READ)) die("mprotect");
}

static void write_file(const char *path, const struct guarded *g) {
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(g->data, 1, g->bytes, file) != g->bytes || fclose(file)) die(path);
}

static void *symbol(void *library, const char *name) {
  void *found = dlsym(library, name);
  if (!found) die(dlerror());
  return found;
}

#define FIND(name) __typeof__(e2e_##name) *name = (__typeof__(e2e_##name) *)symbol(library, "e2e_" #name)

static void job(int number, char **words) {
  void *library = dlopen(words[0], RTLD_NOW | RTLD_LOCAL);
  if (!library) die(dlerror());
  FIND(create);
  FIND(destroy);
  FIND(run);
  FIND(inputs);
  FIND(outputs);
  FIND(input);
  FIND(output);
  FIND(workspace_size);
  FIND(last_error);
  FIND(level);
  struct guarded in[MAX_TENSORS], out[2][MAX_TENSORS];
  const void *sources[MAX_TENSORS];
  void *targets[MAX_TENSORS];
  const char *trouble = NULL;
  int n_in = inputs(), n_out = outputs();
  for (int i = 0; i < n_in; i++) {
    in[i] = guard(input(0, i)->bytes, input(0, i)->alignment, 0);
    read_file(words[4 + i], &in[i]);
    sources[i] = in[i].data;
  }
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < n_out; i++) {
      out[round][i] = guard(output(0, i)->bytes, output(0, i)->alignment, POISON[!round]);
      targets[i] = out[round][i].data;
    }
    e2e_options options = {
        .threads = round + 1, .flags = atoi(words[3]), .level = words[2], .weights_path = words[1]};
    e2e_context *context;
    if (trouble || create(&context, &options)) {
      trouble = trouble ? trouble : last_error();
      continue;
    }
    struct guarded workspace = guard(workspace_size(context, 0), 64, POISON[round]);
    if (strcmp(level(context), words[2])) trouble = "ran on another level";
    if (run(context, sources, targets, workspace.data)) trouble = last_error();
    release(&workspace);
    destroy(context);
  }
#ifdef EMULATE_AMX
  if (octavo_amx_emulator_configured()) trouble = "the tile configuration was not released";
#endif
  for (int i = 0; i < n_out; i++) {
    if (!trouble && memcmp(out[0][i].data, out[1][i].data, out[0][i].bytes))
      trouble = "one thread and two, or two contents of the workspace, give different bytes";
    write_file(words[4 + n_in + i], &out[0][i]);
    release(&out[0][i]);
    release(&out[1][i]);
  }
  for (int i = 0; i < n_in; i++) release(&in[i]);
  printf("%d %s\n", number, trouble ? trouble : "ok");
  fflush(stdout);
  dlclose(library);
}

int main(int argc, char **argv) {
  static char line[LINE];
  char *words[4 + 2 * MAX_TENSORS + 1];
  FILE *jobs = argc == 2 ? fopen(argv[1], "r") : NULL;
  if (!jobs) die("usage: runner JOBS");
#ifdef EMULATE_AMX
  if (octavo_amx_emulator_install()) die("the AMX emulator");
#endif
  for (int number = 0; fgets(line, sizeof line, jobs); number++) {
    int count = 0;
    for (char *word = strtok(line, " \n"); word && count < 4 + 2 * MAX_TENSORS; word = strtok(NULL, " \n"))
      words[count++] = word;
    words[count] = NULL;
    fprintf(stderr, "job %d\n", number);
    job(number, words);
  }
  return 0;
}
