/* One compiled network as a C library.  Every name carries the prefix octavo_bundle, so several bundles fit in one program.
 *
 *   octavo_bundle_context *context;
 *   if (octavo_bundle_create(&context, NULL)) { fputs(octavo_bundle_last_error(), stderr); exit(1); }
 *   const void *inputs[] = {pixels};
 *   void *outputs[] = {scores};
 *   octavo_bundle_run(context, inputs, outputs, NULL);
 *   octavo_bundle_destroy(context);
 *
 * A context may be used by several threads at once, and in a child process after fork().  The same input gives the same
 * bytes for every level, number of threads and floating-point environment of the caller.
 */
#ifndef OCTAVO_BUNDLE_H
#define OCTAVO_BUNDLE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef struct octavo_bundle_context octavo_bundle_context;

enum octavo_bundle_status {
  OCTAVO_BUNDLE_OK = 0,
  OCTAVO_BUNDLE_ARGUMENT = 1,  /* a null pointer, an unknown plan, a number out of range */
  OCTAVO_BUNDLE_CPU = 2,       /* this CPU or operating system can run no level of the bundle */
  OCTAVO_BUNDLE_LEVEL = 3,     /* the level asked for is unknown, or not possible here */
  OCTAVO_BUNDLE_WEIGHTS = 4,   /* the weights file is missing, truncated or belongs to another bundle */
  OCTAVO_BUNDLE_MEMORY = 5,
  OCTAVO_BUNDLE_ALIGNMENT = 6, /* a caller's buffer is not aligned as its descriptor, or the workspace to 64 bytes */
  OCTAVO_BUNDLE_KERNEL = 7,    /* a kernel reported a failure */
  OCTAVO_BUNDLE_PARALLEL = 8   /* the caller's parallel_for failed or left pieces out */
};

/* A parallel_for calls body(state, begin, end) for ranges that cover [0, pieces) once, on any threads, in any order, and
 * returns when all have ended: 0, or something else to report a failure.  One thread may serve several pieces. */
typedef void (*octavo_bundle_body)(void *state, int32_t begin, int32_t end);
typedef int (*octavo_bundle_parallel_for)(void *user, int32_t pieces, octavo_bundle_body body, void *state);

enum octavo_bundle_flags {
  OCTAVO_BUNDLE_UNCHECKED_LEVEL = 1 /* take `level` without asking the CPU, for tests that emulate instructions */
};

/* All zeros means the defaults. */
typedef struct octavo_bundle_options {
  int32_t threads;          /* 0: OCTAVO_NUM_THREADS of the environment, or else the CPUs this process may use */
  int32_t flags;            /* enum octavo_bundle_flags */
  const char *level;        /* one of the bundle's levels; NULL: the best that this machine supports */
  const char *weights_path; /* NULL: weights.bin beside the library or program that holds this code; unused when embedded */
  octavo_bundle_parallel_for parallel_for; /* NULL: the context's own threads; else called with at most `threads` pieces */
  void *parallel_user;      /* first argument of parallel_for */
} octavo_bundle_options;

typedef enum octavo_bundle_dtype {
  OCTAVO_BUNDLE_FLOAT32 = 0,
  OCTAVO_BUNDLE_INT8 = 1,
  OCTAVO_BUNDLE_UINT8 = 2,
  OCTAVO_BUNDLE_INT32 = 3,
  OCTAVO_BUNDLE_INT64 = 4,
  OCTAVO_BUNDLE_BOOL = 5
} octavo_bundle_dtype;

typedef struct octavo_bundle_tensor {
  const char *name;
  octavo_bundle_dtype dtype;
  int32_t rank;
  const int64_t *shape;
  size_t bytes;     /* row-major, without gaps */
  size_t alignment; /* of the caller's buffer */
  float scale;      /* real = scale * (stored - zero_point); 0 when the tensor is not quantized */
  int32_t zero_point;
} octavo_bundle_tensor;

/* Chooses a level, finds the weights and starts the threads.  On failure *out is NULL and octavo_bundle_last_error() says why. */
int octavo_bundle_create(octavo_bundle_context **out, const octavo_bundle_options *options);

/* Nothing may be running.  NULL is allowed. */
void octavo_bundle_destroy(octavo_bundle_context *context);

/* Bytes of workspace that one run of a plan needs, with this context's number of threads. */
size_t octavo_bundle_workspace_size(const octavo_bundle_context *context, int32_t plan);

/* Runs the first plan.  `inputs` and `outputs` hold one pointer each per tensor, in the order of the descriptors; outputs
 * overlap nothing.  `workspace` is 64-byte aligned memory whose content does not matter, one for each run at a time, or
 * NULL: then the context keeps workspaces of its own. */
int octavo_bundle_run(octavo_bundle_context *context, const void *const *inputs, void *const *outputs, void *workspace);

/* The same for one of several input shapes. */
int octavo_bundle_run_plan(octavo_bundle_context *context, int32_t plan, const void *const *inputs, void *const *outputs,
                           void *workspace);

/* The same, and writes the nanoseconds of each step: octavo_bundle_steps() numbers. */
int octavo_bundle_run_profiled(octavo_bundle_context *context, int32_t plan, const void *const *inputs,
                               void *const *outputs, void *workspace, uint64_t *nanoseconds);

/* Names of the levels, best first; NULL beyond the last. */
const char *octavo_bundle_level_name(int32_t index);
/* The level this context runs. */
const char *octavo_bundle_level(const octavo_bundle_context *context);
int32_t octavo_bundle_threads(const octavo_bundle_context *context);

int32_t octavo_bundle_plans(void);
int32_t octavo_bundle_inputs(void);
int32_t octavo_bundle_outputs(void);
/* NULL for an index or a plan that does not exist. */
const octavo_bundle_tensor *octavo_bundle_input(int32_t plan, int32_t index);
const octavo_bundle_tensor *octavo_bundle_output(int32_t plan, int32_t index);

/* Steps of a plan, and the name of the layer that a step computes. */
int32_t octavo_bundle_steps(const octavo_bundle_context *context, int32_t plan);
const char *octavo_bundle_step_label(const octavo_bundle_context *context, int32_t plan, int32_t step);

/* The meaning of a status. */
const char *octavo_bundle_strerror(int status);
/* What went wrong in this thread's last call that failed, with names and numbers. */
const char *octavo_bundle_last_error(void);
/* Identifies code and weights; equal to "build" in manifest.json. */
const char *octavo_bundle_build(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
