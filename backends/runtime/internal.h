/* What the generated sequencer and the runtime agree on.  One translation unit holds both, so all of it is static. */
#include <stdatomic.h>

enum { ALIGNMENT = 64, MAX_THREADS = 256 };

/* One run: where its buffers are.  Read by every thread that works on it, on a cache line that nobody writes meanwhile. */
struct frame {
  _Alignas(ALIGNMENT) const void *const *inputs;
  void *const *outputs;
  uint8_t *arena;
  const uint8_t *weights;
  uint8_t *scratch; /* of piece 0; the others follow at scratch_stride */
  size_t scratch_stride;
};

/* Calls a step's kernel for the tasks [begin, end) of one piece, and returns the kernel's status. */
typedef int32_t (*step_function)(const struct frame *frame, uint8_t *scratch, int32_t begin, int32_t end);

/* Where part `part` of `parts` even ones begins, of a number of tasks. */
static inline int32_t first_of(int32_t tasks, int32_t part, int32_t parts) {
  return (int32_t)((int64_t)tasks * part / parts);
}

struct step {
  step_function call;
  int32_t tasks; /* independent units of work */
  int32_t grain; /* fewest tasks worth a thread */
  const char *label;
};

struct plan {
  size_t arena_bytes;   /* with the slack that kernels may read past the last buffer */
  size_t scratch_bytes; /* for each piece that runs at the same time */
  const struct step *steps;
  int32_t count;
};

/* What the machine says about itself: CPUID leaves and subleaves by register, and the auxiliary vector of Linux on ARM. */
enum word { LEAF1_ECX, LEAF7_EBX, LEAF7_ECX, LEAF7_EDX, LEAF7_1_EAX, LEAF7_1_EDX, EXTENDED1_ECX, HWCAP, HWCAP2, WORDS };

/* Where an instruction set shows itself: a bit of one word, and the register state it needs. */
struct feature {
  const char *name;
  uint8_t word;
  uint8_t bit;
  uint32_t state; /* bits that XCR0 must have, x86 only */
};

struct level {
  const char *name;
  const struct feature *features;
  int32_t feature_count;
  const struct plan *plans;
};
