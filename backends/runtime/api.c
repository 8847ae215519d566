/* Contexts and runs. */

enum { WORKSPACES = 16 };

struct octavo_bundle_context {
  const struct level *level;
  struct weights weights;
  int32_t threads;
  octavo_bundle_parallel_for parallel_for;
  void *parallel_user;
  struct pool *_Atomic pool;
  /* Workspaces between runs.  Taken and given back by single atomic operations: no lock that a fork could leave held. */
  void *_Atomic workspaces[WORKSPACES];
};

/* A step that the caller's parallel_for runs. */
struct launch {
  const struct frame *frame;
  const struct step *step;
  int32_t pieces;
  _Atomic int32_t served;
  _Atomic int32_t status;
};

static size_t align_up(size_t bytes) { return (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1); }

/* The body of every parallel_for. */
static void serve_pieces(void *opaque, int32_t begin, int32_t end) {
  struct launch *launch = opaque;
  uint8_t *scratch = launch->frame->scratch + (size_t)begin * launch->frame->scratch_stride;
  int32_t from = first_of(launch->step->tasks, begin, launch->pieces), to = first_of(launch->step->tasks, end, launch->pieces);
  rounding saved = enter_rounding();
  int32_t status = launch->step->call(launch->frame, scratch, from, to);
  leave_rounding(saved);
  if (status) atomic_store(&launch->status, status);
  atomic_fetch_add(&launch->served, end - begin);
}

static int32_t count_pieces(const octavo_bundle_context *context, const struct pool *pool, const struct step *step) {
  int32_t most = pool ? pool->threads : context->parallel_for ? context->threads : 1;
  int32_t worthwhile = step->tasks / step->grain;
  int32_t pieces = worthwhile < most ? worthwhile : most;
  return pieces < 1 ? 1 : pieces;
}

static int report(const struct step *step, int32_t status) {
  return status ? fail(OCTAVO_BUNDLE_KERNEL, "the kernel of %s returned %d", step->label, (int)status)
                : OCTAVO_BUNDLE_OK;
}

static int run_in_parallel_for(octavo_bundle_context *context, const struct frame *frame, const struct step *step,
                               int32_t pieces) {
  struct launch launch = {.frame = frame, .step = step, .pieces = pieces};
  int failed = context->parallel_for(context->parallel_user, pieces, serve_pieces, &launch);
  if (launch.status) return report(step, launch.status);
  if (failed) return fail(OCTAVO_BUNDLE_PARALLEL, "parallel_for returned %d at %s", failed, step->label);
  if (launch.served != pieces)
    return fail(OCTAVO_BUNDLE_PARALLEL, "parallel_for ran %d pieces of %d at %s", (int)launch.served, (int)pieces,
                step->label);
  return OCTAVO_BUNDLE_OK;
}

/* The caller's rounding has been entered already. */
static int run_step(octavo_bundle_context *context, struct pool *pool, const struct frame *frame,
                    const struct step *step) {
  int32_t pieces = count_pieces(context, pool, step);
  if (pieces == 1) return report(step, step->call(frame, frame->scratch, 0, step->tasks));
  if (pool) return report(step, run_on_pool(pool, frame, step, pieces));
  return run_in_parallel_for(context, frame, step, pieces);
}

static int run_steps(octavo_bundle_context *context, const struct plan *plan, const struct frame *frame,
                     uint64_t *nanoseconds) {
  struct pool *pool = context->parallel_for ? NULL : acquire_pool(&context->pool, context->threads);
  rounding saved = enter_rounding();
  uint64_t before = nanoseconds ? nanoseconds_now() : 0;
  int status = OCTAVO_BUNDLE_OK;
  for (int32_t i = 0; i < plan->count && !status; i++) {
    status = run_step(context, pool, frame, &plan->steps[i]);
    if (!nanoseconds) continue;
    uint64_t after = nanoseconds_now();
    nanoseconds[i] = after - before;
    before = after;
  }
  leave_rounding(saved);
  release_pool(pool);
  return status;
}

static size_t plan_bytes(const octavo_bundle_context *context, const struct plan *plan) {
  return align_up(plan->arena_bytes) + (size_t)context->threads * align_up(plan->scratch_bytes);
}

/* Any of the context's workspaces serves any plan. */
static size_t largest_plan_bytes(const octavo_bundle_context *context) {
  size_t largest = ALIGNMENT;
  for (int32_t i = 0; i < PLANS; i++) {
    size_t bytes = plan_bytes(context, &context->level->plans[i]);
    if (bytes > largest) largest = bytes;
  }
  return largest;
}

static void *take_workspace(octavo_bundle_context *context) {
  void *workspace = NULL;
  for (int i = 0; i < WORKSPACES; i++)
    if ((workspace = atomic_exchange(&context->workspaces[i], NULL))) return workspace;
  return posix_memalign(&workspace, ALIGNMENT, largest_plan_bytes(context)) ? NULL : workspace;
}

static void give_workspace(octavo_bundle_context *context, void *workspace) {
  for (int i = 0; i < WORKSPACES; i++) {
    void *none = NULL;
    if (atomic_compare_exchange_strong(&context->workspaces[i], &none, workspace)) return;
  }
  free(workspace);
}

static int check_buffer(const octavo_bundle_tensor *tensor, const void *buffer) {
  if (!buffer) return fail(OCTAVO_BUNDLE_ARGUMENT, "no buffer for %s", tensor->name);
  if ((uintptr_t)buffer % tensor->alignment)
    return fail(OCTAVO_BUNDLE_ALIGNMENT, "the buffer of %s is not aligned to %zu bytes", tensor->name, tensor->alignment);
  return OCTAVO_BUNDLE_OK;
}

static int check_run(const octavo_bundle_context *context, int32_t plan, const void *const *inputs,
                     void *const *outputs, const void *workspace) {
  int status = OCTAVO_BUNDLE_OK;
  if (!context || !inputs || !outputs) return fail(OCTAVO_BUNDLE_ARGUMENT, "context, inputs or outputs is NULL");
  if (plan < 0 || plan >= PLANS) return fail(OCTAVO_BUNDLE_ARGUMENT, "plan %d of %d", (int)plan, (int)PLANS);
  for (int32_t i = 0; i < INPUTS && !status; i++) status = check_buffer(&INPUT_TENSORS[plan][i], inputs[i]);
  for (int32_t i = 0; i < OUTPUTS && !status; i++) status = check_buffer(&OUTPUT_TENSORS[plan][i], outputs[i]);
  if (!status && (uintptr_t)workspace % ALIGNMENT)
    return fail(OCTAVO_BUNDLE_ALIGNMENT, "the workspace is not aligned to %d bytes", (int)ALIGNMENT);
  return status;
}

int octavo_bundle_run_profiled(octavo_bundle_context *context, int32_t plan, const void *const *inputs,
                               void *const *outputs, void *workspace, uint64_t *nanoseconds) {
  int status = check_run(context, plan, inputs, outputs, workspace);
  if (status) return status;
  const struct plan *chosen = &context->level->plans[plan];
  uint8_t *arena = workspace ? workspace : take_workspace(context);
  if (!arena) return fail(OCTAVO_BUNDLE_MEMORY, "no memory for a workspace of %zu bytes", largest_plan_bytes(context));
  struct frame frame = {
      .inputs = inputs,
      .outputs = outputs,
      .arena = arena,
      .weights = context->weights.data,
      .scratch = arena + align_up(chosen->arena_bytes),
      .scratch_stride = align_up(chosen->scratch_bytes),
  };
  status = run_steps(context, chosen, &frame, nanoseconds);
  if (!workspace) give_workspace(context, arena);
  return status;
}

int octavo_bundle_run_plan(octavo_bundle_context *context, int32_t plan, const void *const *inputs, void *const *outputs,
                           void *workspace) {
  return octavo_bundle_run_profiled(context, plan, inputs, outputs, workspace, NULL);
}

int octavo_bundle_run(octavo_bundle_context *context, const void *const *inputs, void *const *outputs, void *workspace) {
  return octavo_bundle_run_profiled(context, 0, inputs, outputs, workspace, NULL);
}

static int32_t default_threads(void) {
  const char *text = getenv("OCTAVO_NUM_THREADS");
  int32_t threads = text ? (int32_t)strtol(text, NULL, 10) : 0;
  cpu_set_t allowed;
  if (threads < 1 && sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    int32_t quota = quota_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    threads = CPU_COUNT(&allowed);
    if (quota < threads) threads = quota;
  }
  return threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
}

static int fill_context(octavo_bundle_context *context, const octavo_bundle_options *options) {
  struct machine machine;
  examine(&machine, wants_tiles(LEVELS, LEVEL_COUNT, options->level));
  int unchecked = options->flags & OCTAVO_BUNDLE_UNCHECKED_LEVEL;
  int status = choose_level(&machine, LEVELS, LEVEL_COUNT, options->level, unchecked, &context->level);
  if (status) return status;
  status = open_weights(&context->weights, options->weights_path);
  if (status) return status;
  context->threads = options->threads ? options->threads : default_threads();
  context->parallel_for = options->parallel_for;
  context->parallel_user = options->parallel_user;
  if (context->parallel_for || context->threads == 1) return OCTAVO_BUNDLE_OK;
  context->pool = create_pool(context->threads);
  return context->pool ? OCTAVO_BUNDLE_OK : fail(OCTAVO_BUNDLE_MEMORY, "no memory for %d threads", (int)context->threads);
}

int octavo_bundle_create(octavo_bundle_context **out, const octavo_bundle_options *options) {
  static const octavo_bundle_options defaults;
  if (!out) return fail(OCTAVO_BUNDLE_ARGUMENT, "out is NULL");
  *out = NULL;
  if (!options) options = &defaults;
  if (options->threads < 0 || options->threads > MAX_THREADS)
    return fail(OCTAVO_BUNDLE_ARGUMENT, "%d threads, expected 0 to %d", (int)options->threads, (int)MAX_THREADS);
  octavo_bundle_context *context = calloc(1, sizeof *context);
  if (!context) return fail(OCTAVO_BUNDLE_MEMORY, "no memory for a context");
  int status = fill_context(context, options);
  if (status) octavo_bundle_destroy(context);
  else *out = context;
  return status;
}

void octavo_bundle_destroy(octavo_bundle_context *context) {
  if (!context) return;
  destroy_pool(context->pool);
  for (int i = 0; i < WORKSPACES; i++) free(context->workspaces[i]);
  close_weights(&context->weights);
  free(context);
}

static const struct plan *find_plan(const octavo_bundle_context *context, int32_t plan) {
  return context && plan >= 0 && plan < PLANS ? &context->level->plans[plan] : NULL;
}

size_t octavo_bundle_workspace_size(const octavo_bundle_context *context, int32_t plan) {
  const struct plan *found = find_plan(context, plan);
  return found ? plan_bytes(context, found) : 0;
}

int32_t octavo_bundle_steps(const octavo_bundle_context *context, int32_t plan) {
  const struct plan *found = find_plan(context, plan);
  return found ? found->count : 0;
}

const char *octavo_bundle_step_label(const octavo_bundle_context *context, int32_t plan, int32_t step) {
  const struct plan *found = find_plan(context, plan);
  return found && step >= 0 && step < found->count ? found->steps[step].label : NULL;
}

const char *octavo_bundle_level_name(int32_t index) {
  return index >= 0 && index < LEVEL_COUNT ? LEVELS[index].name : NULL;
}

const char *octavo_bundle_level(const octavo_bundle_context *context) { return context ? context->level->name : NULL; }

int32_t octavo_bundle_threads(const octavo_bundle_context *context) { return context ? context->threads : 0; }

int32_t octavo_bundle_plans(void) { return PLANS; }
int32_t octavo_bundle_inputs(void) { return INPUTS; }
int32_t octavo_bundle_outputs(void) { return OUTPUTS; }

const octavo_bundle_tensor *octavo_bundle_input(int32_t plan, int32_t index) {
  int known = plan >= 0 && plan < PLANS && index >= 0 && index < INPUTS;
  return known ? &INPUT_TENSORS[plan][index] : NULL;
}

const octavo_bundle_tensor *octavo_bundle_output(int32_t plan, int32_t index) {
  int known = plan >= 0 && plan < PLANS && index >= 0 && index < OUTPUTS;
  return known ? &OUTPUT_TENSORS[plan][index] : NULL;
}

const char *octavo_bundle_build(void) { return BUILD; }
