/* Runs kernels on jobs from a file, in an emulated process: driver JOBS RESULTS.
 * A job is: symbol (32 bytes), argument count, range count, the ranges, then each argument as size, slack, is-output, bytes.
 * The results are the bytes of all outputs in order. Each argument ends at a guard page behind its slack. */
#define _GNU_SOURCE
#include "qemu_driver.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_ARGS = 24, MAX_RANGES = 64 };

struct argument {
  int64_t size, slack, is_output;
};

static void need(int ok, const char *what) {
  if (!ok) {
    fprintf(stderr, "driver: %s\n", what);
    exit(2);
  }
}

static int read_all(FILE *file, void *target, size_t size) { return fread(target, 1, size, file) == size; }

static char *guarded(int64_t size, int64_t slack, char **base, size_t *length) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  size_t body = ((size_t)(size + slack + 64) + page - 1) / page * page;
  *length = body + page;
  *base = mmap(0, *length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  need(*base != MAP_FAILED, "out of memory");
  memset(*base, 0x5A, body);
  need(mprotect(*base + body, page, PROT_NONE) == 0, "mprotect");
  return *base + (body - (size_t)(size + slack)) / 64 * 64;
}

static const struct entry *find(const char *symbol) {
  const struct entry *entry = entries;
  while (entry->symbol && strcmp(entry->symbol, symbol)) ++entry;
  need(entry->symbol != 0, "unknown symbol");
  return entry;
}

int main(int argc, char **argv) {
  need(argc == 3, "usage: driver JOBS RESULTS");
  FILE *jobs = fopen(argv[1], "rb"), *results = fopen(argv[2], "wb");
  need(jobs && results, "cannot open files");
  char symbol[32];
  while (read_all(jobs, symbol, sizeof symbol)) {
    int32_t counts[2], ranges[2 * MAX_RANGES];
    struct argument arguments[MAX_ARGS];
    void *pointers[MAX_ARGS];
    char *bases[MAX_ARGS];
    size_t lengths[MAX_ARGS];
    need(read_all(jobs, counts, sizeof counts), "short job");
    need(counts[0] <= MAX_ARGS && counts[1] <= MAX_RANGES, "job too large");
    need(read_all(jobs, ranges, 8 * (size_t)counts[1]), "short job");
    for (int i = 0; i < counts[0]; ++i) {
      need(read_all(jobs, &arguments[i], sizeof arguments[i]), "short job");
      pointers[i] = guarded(arguments[i].size, arguments[i].slack, &bases[i], &lengths[i]);
      need(read_all(jobs, pointers[i], (size_t)arguments[i].size), "short job");
    }
    for (int i = 0; i < counts[1]; ++i) {
      if (find(symbol)->call(pointers, ranges[2 * i], ranges[2 * i + 1])) {
        fprintf(stderr, "driver: %s failed\n", symbol);
        return 3;
      }
    }
    for (int i = 0; i < counts[0]; ++i) {
      if (arguments[i].is_output) fwrite(pointers[i], 1, (size_t)arguments[i].size, results);
      munmap(bases[i], lengths[i]);
    }
  }
  need(fclose(results) == 0, "cannot write results");
  return 0;
}
