/* The constants of all levels: embedded in the code, or a file mapped read-only and so shared between processes.
 *
 * The file is a 64-byte header, which the library knows byte for byte (it holds the digest of what follows), and the data.
 * Comparing header and size on loading refuses a truncated file and one of another bundle at no cost; only `octavo verify`
 * reads everything.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { WEIGHTS_HEADER = 64 };

struct weights {
  const uint8_t *data;
  void *mapping;
  size_t mapped;
};

#if OCTAVO_EMBEDDED_WEIGHTS
static int open_weights(struct weights *weights, const char *path) {
  (void)path;
  weights->data = EMBEDDED_WEIGHTS + WEIGHTS_HEADER;
  return OCTAVO_BUNDLE_OK;
}
#else
#include <dlfcn.h>
#include <limits.h>

/* weights.bin in the folder of the library or program that this function is part of. */
static int default_path(char *path, size_t size) {
  Dl_info info;
  if (!dladdr((void *)(uintptr_t)&octavo_bundle_create, &info) || !info.dli_fname) return 0;
  const char *slash = strrchr(info.dli_fname, '/');
  int folder = slash ? (int)(slash - info.dli_fname) : 1;
  int written = snprintf(path, size, "%.*s/weights.bin", folder, slash ? info.dli_fname : ".");
  return written > 0 && (size_t)written < size;
}

static int check_and_map(struct weights *weights, int file, const char *path) {
  const size_t expected = WEIGHTS_HEADER + (size_t)WEIGHTS_BYTES;
  struct stat status;
  if (fstat(file, &status)) return fail(OCTAVO_BUNDLE_WEIGHTS, "%s: %s", path, strerror(errno));
  if ((uint64_t)status.st_size != expected)
    return fail(OCTAVO_BUNDLE_WEIGHTS, "%s holds %lld bytes, expected %zu", path, (long long)status.st_size, expected);
  void *mapping = mmap(NULL, expected, PROT_READ, MAP_PRIVATE, file, 0);
  if (mapping == MAP_FAILED) return fail(OCTAVO_BUNDLE_WEIGHTS, "%s cannot be mapped: %s", path, strerror(errno));
  weights->mapping = mapping;
  weights->mapped = expected;
  weights->data = (const uint8_t *)mapping + WEIGHTS_HEADER;
  if (memcmp(mapping, WEIGHTS_HEADER_BYTES, WEIGHTS_HEADER) == 0) return OCTAVO_BUNDLE_OK;
  return fail(OCTAVO_BUNDLE_WEIGHTS, "%s is not the weights file of this bundle", path);
}

static int open_weights(struct weights *weights, const char *path) {
  char beside[PATH_MAX];
  if (!path && !default_path(beside, sizeof beside))
    return fail(OCTAVO_BUNDLE_WEIGHTS, "cannot tell where weights.bin is: set weights_path");
  if (!path) path = beside;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return fail(OCTAVO_BUNDLE_WEIGHTS, "%s: %s", path, strerror(errno));
  int status = check_and_map(weights, file, path);
  close(file);
  return status;
}
#endif

static void close_weights(struct weights *weights) {
  if (weights->mapping) munmap(weights->mapping, weights->mapped);
}
