/* Which levels this machine can run.
 *
 * A CPUID bit alone is not enough on x86: the operating system must save the registers too (XCR0), and for the AMX tile
 * data the process must ask for permission, which a kernel or a container may deny.
 */
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#else
#error "octavo bundles run on x86-64 and aarch64"
#endif

enum { XCR0_TILE_DATA = 1u << 18 };

/* Everything that the machine says about itself, gathered once so that the decision below can be tested. */
struct machine {
  uint64_t words[WORDS];
  uint32_t xcr0;
  int tiles_permitted;
};

static int has_feature(const struct machine *machine, const struct feature *feature) {
  if (!(machine->words[feature->word] >> feature->bit & 1)) return 0;
  if ((machine->xcr0 & feature->state) != feature->state) return 0;
  return !(feature->state & XCR0_TILE_DATA) || machine->tiles_permitted;
}

/* The first feature of a level that the machine lacks, or NULL. */
static const struct feature *first_missing(const struct machine *machine, const struct level *level) {
  for (int32_t i = 0; i < level->feature_count; i++)
    if (!has_feature(machine, &level->features[i])) return &level->features[i];
  return NULL;
}

#if defined(__x86_64__)
static uint32_t read_xcr0(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

/* arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA): the kernel grants tile data to the whole process, and from then on
 * wants larger signal stacks of it; so this is asked only for a level that uses tiles. */
static int ask_for_tiles(void) { return syscall(158, 0x1023, 18) == 0; }

static void examine(struct machine *machine, int tiles_wanted) {
  unsigned a, b, c, d;
  memset(machine, 0, sizeof *machine);
  if (!__get_cpuid(1, &a, &b, &c, &d)) return;
  machine->words[LEAF1_ECX] = c;
  if (c >> 27 & 1) machine->xcr0 = read_xcr0();
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    unsigned last_subleaf = a;
    machine->words[LEAF7_EBX] = b;
    machine->words[LEAF7_ECX] = c;
    machine->words[LEAF7_EDX] = d;
    if (tiles_wanted && d >> 24 & 1) machine->tiles_permitted = ask_for_tiles();
    if (last_subleaf >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
      machine->words[LEAF7_1_EAX] = a;
      machine->words[LEAF7_1_EDX] = d;
    }
  }
  if (__get_cpuid(0x80000001u, &a, &b, &c, &d)) machine->words[EXTENDED1_ECX] = c;
}
#else
static void examine(struct machine *machine, int tiles_wanted) {
  (void)tiles_wanted;
  memset(machine, 0, sizeof *machine);
  machine->words[HWCAP] = getauxval(AT_HWCAP);
  machine->words[HWCAP2] = getauxval(AT_HWCAP2);
}
#endif

/* Whether a level that may be chosen uses AMX tiles. */
static int wants_tiles(const struct level *levels, int32_t count, const char *wanted) {
  for (int32_t i = 0; i < count; i++) {
    if (wanted && strcmp(levels[i].name, wanted)) continue;
    for (int32_t j = 0; j < levels[i].feature_count; j++)
      if (levels[i].features[j].state & XCR0_TILE_DATA) return 1;
  }
  return 0;
}

static const struct level *find_level(const struct level *levels, int32_t count, const char *name) {
  for (int32_t i = 0; i < count; i++)
    if (strcmp(levels[i].name, name) == 0) return &levels[i];
  return NULL;
}

/* Levels stand best first.  NULL `wanted` takes the first that the machine can run. */
static int choose_level(const struct machine *machine, const struct level *levels, int32_t count, const char *wanted,
                        int unchecked, const struct level **chosen) {
  const struct feature *missing = NULL;
  if (wanted) {
    *chosen = find_level(levels, count, wanted);
    if (!*chosen) return fail(OCTAVO_BUNDLE_LEVEL, "the bundle has no level \"%s\"", wanted);
    if (!unchecked) missing = first_missing(machine, *chosen);
    if (missing) return fail(OCTAVO_BUNDLE_LEVEL, "level %s needs %s, which this machine lacks", wanted, missing->name);
    return OCTAVO_BUNDLE_OK;
  }
  for (int32_t i = 0; i < count; i++) {
    missing = first_missing(machine, &levels[i]);
    *chosen = &levels[i];
    if (!missing) return OCTAVO_BUNDLE_OK;
  }
  return fail(OCTAVO_BUNDLE_CPU, "this machine can run no level of the bundle: even %s needs %s", (*chosen)->name,
              missing ? missing->name : "a level");
}
