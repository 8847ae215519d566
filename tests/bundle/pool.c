/* A step of two pieces, of which the worker is stopped in its first slice, until the launcher has run all other tasks.
 * Prints how many tasks each thread ran, launcher first.  Compiled behind the runtime's pool.c. */
enum { TASKS = 32 };

static _Atomic int ran[2], times[TASKS];
static pthread_t launcher;

static int32_t run(const struct frame *frame, uint8_t *scratch, int32_t begin, int32_t end) {
  int worker = !pthread_equal(pthread_self(), launcher);
  if (scratch != frame->scratch + worker * frame->scratch_stride) return 1;
  for (int32_t task = begin; task < end; task++) times[task]++;
  ran[worker] += end - begin;
  while (!worker && !ran[1]) sched_yield(); /* the worker has a slice, however late it comes */
  while (worker && ran[0] + ran[1] < TASKS) sched_yield();
  return 0;
}

int main(void) {
  uint8_t scratch[2];
  struct frame frame = {.scratch = scratch, .scratch_stride = 1};
  struct step step = {run, TASKS, 1, "step"};
  struct pool *pool = create_pool(2);
  launcher = pthread_self();
  if (run_on_pool(pool, &frame, &step, 2)) return 1;
  for (int32_t task = 0; task < TASKS; task++)
    if (times[task] != 1) return 2;
  destroy_pool(pool);
  printf("%d %d\n", ran[0], ran[1]);
  return 0;
}
