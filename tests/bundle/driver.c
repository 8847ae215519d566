/* Treats a bundle as a C program would, and worse.  driver MODE INPUT.raw EXPECTED.raw; 0 means it behaved.
 *
 * Compiled with -DPREFIX=toy -DHEADER='"toy.h"'.  The first plan has one float32 input and one float32 output.
 */
#define _GNU_SOURCE
#include HEADER

#include <dirent.h>
#include <fenv.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PASTE2(a, b) a##_##b
#define PASTE(a, b) PASTE2(a, b)
#define P(name) PASTE(PREFIX, name)

static const void *input;
static const void *expected;
static size_t input_bytes, output_bytes;

#define REQUIRE(condition)                                                                           \
  do {                                                                                               \
    if (!(condition)) {                                                                              \
      fprintf(stderr, "%s:%d: %s; last error: %s\n", __FILE__, __LINE__, #condition, P(last_error)()); \
      _exit(1);                                                                                      \
    }                                                                                                \
  } while (0)

static void *read_file(const char *path, size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  FILE *file = fopen(path, "rb");
  REQUIRE(memory && file && fread(memory, 1, bytes, file) == bytes);
  fclose(file);
  return memory;
}

static P(context) * create(P(options) options) {
  P(context) * context;
  int status = P(create)(&context, &options);
  if (status) fprintf(stderr, "%s: %s\n", P(strerror)(status), P(last_error)());
  if (status) exit(10 + status);
  return context;
}

static int run_on(P(context) * context, const void *in, void *out, void *workspace) {
  const void *inputs[] = {in};
  void *outputs[] = {out};
  return P(run)(context, inputs, outputs, workspace);
}

static void run_and_compare(P(context) * context) {
  void *output = aligned_alloc(64, (output_bytes + 63) / 64 * 64);
  memset(output, 0x5A, output_bytes);
  REQUIRE(run_on(context, input, output, NULL) == 0);
  REQUIRE(memcmp(output, expected, output_bytes) == 0);
  free(output);
}

static void plain(void) {
  P(context) *context = create((P(options)){0});
  run_and_compare(context);
  printf("%s\n", P(level)(context));
  P(destroy)(context);
}

struct rounded_piece {
  P(body) body;
  void *state;
  int32_t piece;
};

static void *run_rounded(void *opaque) {
  struct rounded_piece *piece = opaque;
  fesetround(FE_DOWNWARD);
  piece->body(piece->state, piece->piece, piece->piece + 1);
  REQUIRE(fegetround() == FE_DOWNWARD);
  return NULL;
}

/* A parallel_for on threads that round down. */
static int on_rounding_threads(void *user, int32_t pieces, P(body) body, void *state) {
  pthread_t threads[8];
  struct rounded_piece all[8];
  (void)user;
  for (int32_t i = 0; i < pieces; i++) {
    all[i] = (struct rounded_piece){body, state, i};
    REQUIRE(pthread_create(&threads[i], NULL, run_rounded, &all[i]) == 0);
  }
  for (int32_t i = 0; i < pieces; i++) pthread_join(threads[i], NULL);
  return 0;
}

static void rounding(void) {
  fesetround(FE_UPWARD);
#if defined(__x86_64__)
  feenableexcept(FE_INEXACT | FE_INVALID);
  unsigned before = __builtin_ia32_stmxcsr() | 0x8040; /* flush and denormals-are-zero too */
  __builtin_ia32_ldmxcsr(before);
#endif
  P(context) *context = create((P(options)){.threads = 3}); /* its threads inherit this environment */
  for (int i = 0; i < 100; i++) run_and_compare(context);
#if defined(__x86_64__)
  REQUIRE(__builtin_ia32_stmxcsr() == before);
#endif
  REQUIRE(fegetround() == FE_UPWARD);
  P(destroy)(context);
  context = create((P(options)){.threads = 8, .parallel_for = on_rounding_threads});
  run_and_compare(context);
  P(destroy)(context);
  REQUIRE(fegetround() == FE_UPWARD);
}

static void *run_often(void *context) {
  for (int i = 0; i < 200; i++) run_and_compare(context);
  return NULL;
}

static void threads(void) {
  P(context) *context = create((P(options)){.threads = 3});
  pthread_t all[4];
  for (int i = 0; i < 4; i++) REQUIRE(pthread_create(&all[i], NULL, run_often, context) == 0);
  for (int i = 0; i < 4; i++) pthread_join(all[i], NULL);
  P(destroy)(context);
  for (int i = 0; i < 20; i++) { /* threads end while they spin, sleep, or have not even begun */
    P(context) *brief = create((P(options)){.threads = 1 + i % 4});
    if (i % 2) run_and_compare(brief);
    if (i % 5 == 0) usleep(1000);
    P(destroy)(brief);
  }
}

static void sleepers(void) { /* longer pauses than the pool spins for */
  P(context) *context = create((P(options)){.threads = 4});
  for (int i = 0; i < 50; i++) {
    run_and_compare(context);
    usleep(i % 2 ? 150 : 1500);
  }
  P(destroy)(context);
}

static void crowd(void) { /* more threads than CPUs: pieces are taken late, or by the launcher */
  P(context) *context = create((P(options)){.threads = 9});
  for (int i = 0; i < 1000; i++) run_and_compare(context);
  P(destroy)(context);
}

static void wait_for(pid_t child) {
  int status;
  REQUIRE(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int count_threads(void) {
  int count = 0;
  DIR *tasks = opendir("/proc/self/task");
  while (tasks && readdir(tasks)) count++;
  closedir(tasks);
  return count - 2; /* . and .. */
}

/* fork(), when threads that are new have begun their work: a sanitizer's allocator has a lock that they take before, and a
 * child that inherits it while it is taken waits for ever. */
static pid_t fork_settled(void) {
  usleep(20000);
  return fork();
}

static void in_child(P(context) * context) {
  pid_t child = fork_settled();
  if (child == 0) {
    alarm(20);
    run_and_compare(context);
    REQUIRE(count_threads() == P(threads)(context));
    pid_t grandchild = fork_settled();
    if (grandchild == 0) {
      run_and_compare(context);
      _exit(0);
    }
    wait_for(grandchild);
    run_and_compare(context);
    P(destroy)(context);
    _exit(0);
  }
  wait_for(child);
}

static void forks(void) {
  P(context) *context = create((P(options)){.threads = 3});
  in_child(context); /* before the first run */
  run_and_compare(context);
  in_child(context); /* after a run */
  P(destroy)(context);
}

static void forks_in_runs(void) {
  P(context) *context = create((P(options)){.threads = 3});
  pthread_t busy;
  REQUIRE(pthread_create(&busy, NULL, run_often, context) == 0);
  for (int i = 0; i < 20; i++) in_child(context);
  pthread_join(busy, NULL);
  run_and_compare(context);
  P(destroy)(context);
}

static int backwards(void *user, int32_t pieces, P(body) body, void *state) {
  *(int *)user += 1;
  for (int32_t i = pieces; i-- > 0;) body(state, i, i + 1);
  return 0;
}
static int all_at_once(void *user, int32_t pieces, P(body) body, void *state) {
  (void)user;
  body(state, 0, pieces);
  return 0;
}
static int forgetful(void *user, int32_t pieces, P(body) body, void *state) {
  (void)user;
  body(state, 0, pieces - 1);
  return 0;
}
static int failing(void *user, int32_t pieces, P(body) body, void *state) {
  (void)user, (void)pieces, (void)body, (void)state;
  return 77;
}

static void parallel(void) {
  int calls = 0;
  P(context) *context = create((P(options)){.threads = 7, .parallel_for = backwards, .parallel_user = &calls});
  run_and_compare(context);
  REQUIRE(calls > 0);
  P(destroy)(context);
  context = create((P(options)){.threads = 5, .parallel_for = all_at_once});
  run_and_compare(context);
  P(destroy)(context);
  void *output = malloc(output_bytes);
  P(parallel_for) bad[] = {forgetful, failing};
  for (int i = 0; i < 2; i++) {
    context = create((P(options)){.threads = 5, .parallel_for = bad[i]});
    REQUIRE(run_on(context, input, output, NULL) == 8);
    P(destroy)(context);
  }
  free(output);
}

/* `bytes` of memory between two pages that fault, against the one or against the other. */
static uint8_t *guarded(size_t bytes, int at_end, size_t alignment) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = (bytes + page - 1) / page * page;
  uint8_t *all = mmap(NULL, inside + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(all != MAP_FAILED && mprotect(all + page, inside, PROT_READ | PROT_WRITE) == 0);
  size_t before = at_end ? (inside - bytes) / alignment * alignment : 0;
  return all + page + before;
}

static void guards(void) {
  static const uint8_t poisons[] = {0xA5, 0xFF, 0x7F, 0x00};
  P(context) *context = create((P(options)){.threads = 3});
  size_t workspace_bytes = P(workspace_size)(context, 0);
  for (int i = 0; i < 8; i++) {
    uint8_t *in = guarded(input_bytes, i % 2, P(input)(0, 0)->alignment);
    uint8_t *out = guarded(output_bytes, i % 2, P(output)(0, 0)->alignment);
    uint8_t *workspace = guarded(workspace_bytes, i % 2, 64);
    memcpy(in, input, input_bytes);
    memset(workspace, poisons[i / 2], workspace_bytes);
    REQUIRE(run_on(context, in, out, workspace) == 0);
    REQUIRE(memcmp(out, expected, output_bytes) == 0);
    REQUIRE(memcmp(in, input, input_bytes) == 0);
  }
  P(destroy)(context);
}

static void misuse(void) {
  P(context) *context = create((P(options)){.threads = 2}), *other = (void *)1;
  uint8_t *memory = malloc(output_bytes + 64 + P(workspace_size)(context, 0));
  REQUIRE(P(create)(NULL, NULL) == 1);
  REQUIRE(P(create)(&other, &(P(options)){.threads = -1}) == 1 && other == NULL);
  REQUIRE(P(create)(&other, &(P(options)){.level = "none"}) == 3 && strstr(P(last_error)(), "none"));
  REQUIRE(run_on(NULL, input, memory, NULL) == 1);
  REQUIRE(run_on(context, NULL, memory, NULL) == 1);
  REQUIRE(run_on(context, input, NULL, NULL) == 1);
  REQUIRE(run_on(context, (const uint8_t *)input + 1, memory, NULL) == 6);
  REQUIRE(run_on(context, input, memory, memory + 1) == 6 && strstr(P(last_error)(), "64"));
  REQUIRE(P(run_plan)(context, P(plans)(), (const void *const[]){input}, (void *const[]){memory}, NULL) == 1);
  REQUIRE(P(run_plan)(context, -1, (const void *const[]){input}, (void *const[]){memory}, NULL) == 1);
  REQUIRE(P(workspace_size)(context, 99) == 0 && P(steps)(context, -1) == 0);
  REQUIRE(!P(input)(0, 1) && !P(input)(-1, 0) && !P(output)(0, -1) && !P(level_name)(99) && !P(step_label)(context, 0, 99));
  REQUIRE(strlen(P(build)()) == 64);
  P(destroy)(NULL);
  run_and_compare(context);
  P(destroy)(context);
  free(memory);
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*run)(void);
  } modes[] = {{"plain", plain}, {"rounding", rounding}, {"threads", threads}, {"sleepers", sleepers},
               {"crowd", crowd}, {"forks", forks}, {"forks in runs", forks_in_runs}, {"parallel", parallel},
               {"guards", guards}, {"misuse", misuse}};
  REQUIRE(argc == 4);
  input_bytes = P(input)(0, 0)->bytes;
  output_bytes = P(output)(0, 0)->bytes;
  input = read_file(argv[2], input_bytes);
  expected = read_file(argv[3], output_bytes);
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
    if (strcmp(modes[i].name, argv[1]) == 0) {
      modes[i].run();
      return 0;
    }
  return 2;
}
