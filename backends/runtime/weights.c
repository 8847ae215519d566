/* The constants of all levels: embedded in the code, or a file mapped read-only and so shared between processes; as they
 * are, or coded and then decoded into memory of this context.
 *
 * The file is a 64-byte header, which the library knows byte for byte (it holds the digest of what follows), and the data.
 * Comparing header and size on loading refuses a truncated file and one of another bundle at no cost; only `octavo verify`
 * reads everything.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { WEIGHTS_HEADER = 64, CODED_HEAD = 8 };

struct weights {
  const uint8_t *data;
  void *mapping;
  size_t mapped;
};

#if OCTAVO_CODED_WEIGHTS
static uint32_t little_endian(const uint8_t *bytes) {
  return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static int decode_arrays(const uint8_t *coded, size_t size, uint8_t *data) {
  uint32_t arrays = little_endian(coded);
  const uint8_t *sizes = coded + CODED_HEAD, *end = coded + size;
  if (arrays > (size - CODED_HEAD) / 8) return 0;
  const uint8_t *block = sizes + 8 * (size_t)arrays;
  uint64_t at = 0;
  for (uint32_t i = 0; i < arrays; i++, sizes += 8) {
    uint64_t bytes = little_endian(sizes), stored = little_endian(sizes + 4);
    if (stored > (uint64_t)(end - block) || at + bytes > WEIGHTS_BYTES) return 0;
    if (stored == bytes) memcpy(data + at, block, bytes);
    else if (!decode_block(block, stored, data + at, bytes)) return 0;
    block += stored;
    at = (at + bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  }
  return block == end && crc32_of(data, WEIGHTS_BYTES) == little_endian(coded + 4);
}

/* Replaces what `weights` holds by what `file`, header and all, decodes to. */
static int decode_weights(struct weights *weights, const uint8_t *file, const char *path) {
  uint8_t *data = mmap(NULL, WEIGHTS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return fail(OCTAVO_BUNDLE_MEMORY, "no memory for %llu bytes of weights", WEIGHTS_BYTES);
  int whole = decode_arrays(file + WEIGHTS_HEADER, WEIGHTS_STORED_BYTES, data);
  if (weights->mapping) munmap(weights->mapping, weights->mapped);
  weights->mapping = data;
  weights->mapped = WEIGHTS_BYTES;
  weights->data = data;
  if (!whole) return fail(OCTAVO_BUNDLE_WEIGHTS, "%s is damaged: it does not decode", path);
  mprotect(data, WEIGHTS_BYTES, PROT_READ);
  return OCTAVO_BUNDLE_OK;
}
#else
static int decode_weights(struct weights *weights, const uint8_t *file, const char *path) {
  (void)path;
  weights->data = file + WEIGHTS_HEADER;
  return OCTAVO_BUNDLE_OK;
}
#endif

#if OCTAVO_EMBEDDED_WEIGHTS
static int open_weights(struct weights *weights, const char *path) {
  (void)path;
  return decode_weights(weights, EMBEDDED_WEIGHTS, "the library");
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
  const size_t expected = WEIGHTS_HEADER + (size_t)WEIGHTS_STORED_BYTES;
  struct stat status;
  if (fstat(file, &status)) return fail(OCTAVO_BUNDLE_WEIGHTS, "%s: %s", path, strerror(errno));
  if ((uint64_t)status.st_size != expected)
    return fail(OCTAVO_BUNDLE_WEIGHTS, "%s holds %lld bytes, expected %zu", path, (long long)status.st_size, expected);
  void *mapping = mmap(NULL, expected, PROT_READ, MAP_PRIVATE, file, 0);
  if (mapping == MAP_FAILED) return fail(OCTAVO_BUNDLE_WEIGHTS, "%s cannot be mapped: %s", path, strerror(errno));
  weights->mapping = mapping;
  weights->mapped = expected;
  if (memcmp(mapping, WEIGHTS_HEADER_BYTES, WEIGHTS_HEADER) != 0)
    return fail(OCTAVO_BUNDLE_WEIGHTS, "%s is not the weights file of this bundle", path);
  return decode_weights(weights, mapping, path);
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
