/* A small pool of threads for steps of some microseconds.
 *
 * The tasks of a step are cut into one contiguous piece for each thread, and a piece into slices that get smaller.  Thread i
 * serves the slices of piece i.  When none is left and the others are not done in a moment, it helps them with theirs: so a
 * step does not wait for a thread that sleeps or has no CPU yet, and for a slow one by a slice at most.  It does not look
 * before, because each look at a word that another core wrote costs both as much as a small step.
 *
 * One 64-bit ticket announces a job: the upper bits count jobs, the low 16 say how many pieces it has.  Whoever moves the
 * word `taken` of a piece up by one has that slice.  A thread touches the job only with a slice in hand, and says before
 * that it is serving, and afterwards that it has left.  The launcher leaves the job when all slices are taken, and every
 * worker has left or is not serving.
 *
 * What one core wrote last takes another one long to read, and the first one long to write again.  So a step in which nobody
 * is late needs two such words: the worker reads the ticket, and the launcher that the worker has left.  All others are read
 * by threads that wait.  Between jobs workers spin for a moment, since the next step of the same run is near, and then sleep.
 *
 * Threads of a pool wait for each other, so two on one CPU are as slow as one.  A system does put them there, when other
 * CPUs are busy for a moment, and lets them be: a worker looks now and then where the others are, and moves.
 *
 * A pool serves one run at a time: a second caller does not wait, it runs its steps by itself.  After fork() the child has
 * the memory but not the threads, perhaps with a lock held by a thread that is gone: it never touches the pool of its
 * parent and makes a new one.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { SPIN_NANOSECONDS = 200000, PATIENCE_NANOSECONDS = 100000, HELP_NANOSECONDS = 3000 };
enum { PAUSES_PER_LOOK = 32, PIECE_BITS = 16 };
enum { JOBS_PER_LOOK = 16, NO_CPU = -1 };

/* Where the slices of a piece begin, in eighths of it. */
static const int8_t SLICES_BEGIN[] = {0, 2, 4, 6, 7, 8};
enum { SLICES = sizeof SLICES_BEGIN / sizeof *SLICES_BEGIN - 1 };

struct job {
  const struct frame *frame;
  const struct step *step;
  int32_t pieces;
};

/* A thread, and what is taken of its piece.  Words that different threads read and write stand on cache lines of their own. */
struct member {
  _Alignas(ALIGNMENT) _Atomic uint64_t taken; /* number of a job, and how many slices of it: as `first_slice` and more */
  _Atomic uint64_t serving; /* ticket of the job that it may be touching */
  _Atomic int cpu;          /* where it was when it looked last */
  struct pool *pool;
  pthread_t thread;
  int32_t piece;
  _Alignas(ALIGNMENT) _Atomic uint64_t left; /* ticket of the job that it does not touch any more; 0 while it helps */
};

struct pool {
  _Alignas(ALIGNMENT) _Atomic uint64_t ticket;
  struct job job;
  _Atomic int stopping;
  _Alignas(ALIGNMENT) _Atomic int sleepers;
  _Atomic int busy;
  _Atomic int32_t status; /* of a kernel that failed */
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  pid_t process;
  struct pool *parent; /* of the process that forked this one; freed, never used */
  int32_t threads;     /* with the caller's */
  struct member members[]; /* the first is the launcher, whichever thread that is */
};

static void pause_cpu(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  __asm__ volatile("yield");
#endif
}

static uint64_t nanoseconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Spins until the ticket is no longer `seen`, or for some time. */
static uint64_t spin_for_ticket(struct pool *pool, uint64_t seen, uint64_t nanoseconds) {
  uint64_t limit = nanoseconds_now() + nanoseconds;
  do {
    for (int i = 0; i < PAUSES_PER_LOOK; i++) {
      uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
      if (ticket != seen) return ticket;
      pause_cpu();
    }
  } while (nanoseconds_now() < limit);
  return seen;
}

/* The launcher stores the ticket and then looks for sleepers; a sleeper counts itself and then looks at the ticket.  Both
 * change the number of sleepers, if only by 0, one after the other: so the second one sees what the first one did before. */
static uint64_t sleep_for_ticket(struct pool *pool, uint64_t seen) {
  uint64_t ticket;
  pthread_mutex_lock(&pool->mutex);
  atomic_fetch_add(&pool->sleepers, 1);
  while ((ticket = atomic_load(&pool->ticket)) == seen) pthread_cond_wait(&pool->wake, &pool->mutex);
  atomic_fetch_sub(&pool->sleepers, 1);
  pthread_mutex_unlock(&pool->mutex);
  return ticket;
}

static void wake_sleepers(struct pool *pool) {
  if (!atomic_fetch_add(&pool->sleepers, 0)) return;
  pthread_mutex_lock(&pool->mutex);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->mutex);
}

static int32_t pieces_of(uint64_t ticket) { return (int32_t)(ticket & ((1u << PIECE_BITS) - 1)); }

/* What `taken` is before anybody has taken a slice of a job's piece. */
static uint64_t first_slice(uint64_t ticket) { return ticket >> PIECE_BITS << PIECE_BITS; }

/* Announces a job, of which the launcher has the first slice of the first piece: to take it afterwards, it would have to wait
 * until other cores have given up the line that the ticket is on. */
static uint64_t announce(struct pool *pool, int32_t pieces) {
  uint64_t seen = atomic_load_explicit(&pool->ticket, memory_order_relaxed);
  uint64_t ticket = ((seen >> PIECE_BITS) + 1) << PIECE_BITS | (uint64_t)pieces;
  atomic_store_explicit(&pool->members[0].taken, first_slice(ticket) + 1, memory_order_relaxed);
  atomic_store_explicit(&pool->ticket, ticket, memory_order_release);
  return ticket;
}

/* The number of a slice that nobody else has, or SLICES.  Tickets only grow, so a thread that comes late with an old one
 * takes nothing. */
static int take_slice(struct member *owner, uint64_t ticket) {
  uint64_t first = first_slice(ticket), taken = atomic_load_explicit(&owner->taken, memory_order_acquire);
  while (taken < first + SLICES) {
    uint64_t slice = taken < first ? first : taken;
    if (atomic_compare_exchange_weak_explicit(&owner->taken, &taken, slice + 1, memory_order_acq_rel,
                                              memory_order_acquire))
      return (int)(slice - first);
  }
  return SLICES;
}

static void serve_slice(struct pool *pool, int32_t thread, int32_t piece, int slice) {
  const struct job *job = &pool->job;
  int32_t begin = first_of(job->step->tasks, piece, job->pieces);
  int64_t tasks = first_of(job->step->tasks, piece + 1, job->pieces) - begin;
  int32_t from = begin + (int32_t)(tasks * SLICES_BEGIN[slice] / 8);
  int32_t to = begin + (int32_t)(tasks * SLICES_BEGIN[slice + 1] / 8);
  if (from == to) return;
  uint8_t *scratch = job->frame->scratch + (size_t)thread * job->frame->scratch_stride;
  int32_t status = job->step->call(job->frame, scratch, from, to);
  if (status) atomic_store(&pool->status, status);
}

static void serve_piece(struct pool *pool, int32_t thread, uint64_t ticket, int32_t piece) {
  int slice;
  while ((slice = take_slice(&pool->members[piece], ticket)) < SLICES) serve_slice(pool, thread, piece, slice);
}

/* What a worker does of a job: its own piece, or to help, after that, what is left of the others. */
static void serve(struct member *self, uint64_t ticket, int help) {
  int32_t pieces = pieces_of(ticket);
  if (self->piece >= pieces) return;
  atomic_store_explicit(&self->serving, ticket, memory_order_relaxed);
  if (help) atomic_store_explicit(&self->left, 0, memory_order_relaxed);
  for (int32_t i = help ? 1 : 0; i < (help ? pieces : 1); i++)
    serve_piece(self->pool, self->piece, ticket, (self->piece + i) % pieces);
  atomic_store_explicit(&self->serving, 0, memory_order_release);
  atomic_store_explicit(&self->left, ticket, memory_order_release);
}

/* Whether another thread of the pool is on this CPU; all their CPUs are taken out of `left`. */
static int shares_cpu(struct member *self, int cpu, cpu_set_t *left) {
  struct pool *pool = self->pool;
  int shared = 0;
  for (int32_t i = 0; i < pool->threads; i++) {
    if (i == self->piece) continue;
    int other = atomic_load_explicit(&pool->members[i].cpu, memory_order_relaxed);
    shared |= other == cpu && i < self->piece;
    if (other != NO_CPU) CPU_CLR(other, left);
  }
  return shared;
}

/* Moves to a CPU that no other thread of the pool is on, if the system allows any.  Then it may move the thread again. */
static void look_around(struct member *self) {
  cpu_set_t allowed, left;
  int cpu = sched_getcpu();
  if (cpu < 0 || sched_getaffinity(0, sizeof allowed, &allowed)) return;
  left = allowed;
  if (shares_cpu(self, cpu, &left) && CPU_COUNT(&left)) {
    sched_setaffinity(0, sizeof left, &left);
    cpu = sched_getcpu();
    sched_setaffinity(0, sizeof allowed, &allowed);
  }
  atomic_store_explicit(&self->cpu, cpu, memory_order_relaxed);
}

static int looks(uint64_t ticket) { return (ticket >> PIECE_BITS) % JOBS_PER_LOOK == 0; }

static void *work(void *opaque) {
  struct member *self = opaque;
  struct pool *pool = self->pool;
  uint64_t seen = 0;
  enter_rounding(); /* for good: nothing but kernels runs here */
  for (;;) {
    uint64_t ticket = spin_for_ticket(pool, seen, HELP_NANOSECONDS);
    if (ticket == seen) {
      serve(self, seen, 1);
      ticket = spin_for_ticket(pool, seen, SPIN_NANOSECONDS);
    }
    if (ticket == seen) ticket = sleep_for_ticket(pool, seen);
    seen = ticket;
    if (atomic_load(&pool->stopping)) return NULL;
    if (looks(ticket)) look_around(self);
    serve(self, seen, 0);
  }
}

/* Signals belong to the program's own threads, except those that an instruction itself raises. */
static void block_signals(sigset_t *saved) {
  static const int synchronous[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP, SIGABRT};
  sigset_t blocked;
  sigfillset(&blocked);
  for (size_t i = 0; i < sizeof synchronous / sizeof *synchronous; i++) sigdelset(&blocked, synchronous[i]);
  pthread_sigmask(SIG_SETMASK, &blocked, saved);
}

/* NULL without memory.  A system that refuses more threads gives a smaller pool. */
static struct pool *create_pool(int32_t threads) {
  size_t bytes = sizeof(struct pool) + (size_t)threads * sizeof(struct member);
  struct pool *pool = aligned_alloc(ALIGNMENT, bytes);
  sigset_t saved;
  if (!pool) return NULL;
  memset(pool, 0, bytes);
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->wake, NULL);
  pool->process = getpid();
  for (int32_t i = 0; i < threads; i++) {
    struct member *member = &pool->members[i];
    member->pool = pool;
    member->piece = i;
    member->cpu = NO_CPU;
  }
  block_signals(&saved);
  for (pool->threads = 1; pool->threads < threads; pool->threads++) {
    struct member *worker = &pool->members[pool->threads];
    if (pthread_create(&worker->thread, NULL, work, worker)) break;
  }
  pthread_sigmask(SIG_SETMASK, &saved, NULL);
  return pool;
}

static void destroy_pool(struct pool *pool) {
  if (!pool) return;
  if (pool->process == getpid()) {
    atomic_store(&pool->stopping, 1);
    announce(pool, 0);
    wake_sleepers(pool);
    for (int32_t i = 1; i < pool->threads; i++) pthread_join(pool->members[i].thread, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
  }
  destroy_pool(pool->parent);
  free(pool);
}

/* The pool of the process that asks, made anew in a child after fork(); NULL: run serially. */
static struct pool *local_pool(struct pool *_Atomic *slot, int32_t threads) {
  struct pool *pool = atomic_load(slot);
  if (!pool || pool->process == getpid()) return pool;
  struct pool *fresh = create_pool(threads);
  if (!fresh) return NULL;
  fresh->parent = pool;
  if (atomic_compare_exchange_strong(slot, &pool, fresh)) return fresh;
  fresh->parent = NULL;
  destroy_pool(fresh);
  return pool;
}

static struct pool *acquire_pool(struct pool *_Atomic *slot, int32_t threads) {
  struct pool *pool = local_pool(slot, threads);
  return pool && !atomic_exchange_explicit(&pool->busy, 1, memory_order_acquire) ? pool : NULL;
}

static void release_pool(struct pool *pool) {
  if (pool) atomic_store_explicit(&pool->busy, 0, memory_order_release);
}

static int has_left(struct member *worker, uint64_t ticket) {
  return atomic_load_explicit(&worker->left, memory_order_acquire) == ticket;
}

/* Nanoseconds since the first look at the clock, which is not looked at in every pause. */
static uint64_t waited(int pauses, uint64_t *since) {
  pause_cpu();
  if (pauses % PAUSES_PER_LOOK) return 0;
  uint64_t now = nanoseconds_now();
  if (!*since) *since = now;
  return now - *since;
}

/* Returns when somebody has each slice of a worker's piece: the launcher, if that takes long. */
static void finish_piece(struct member *worker, uint64_t ticket) {
  uint64_t since = 0;
  for (int pauses = 1; !has_left(worker, ticket); pauses++) {
    if (waited(pauses, &since) <= HELP_NANOSECONDS) continue;
    serve_piece(worker->pool, 0, ticket, worker->piece);
    return;
  }
}

/* Returns when a worker does not touch the job any more, of which it finds no slice. */
static void wait_for(struct member *worker, uint64_t ticket) {
  uint64_t since = 0;
  if (has_left(worker, ticket)) return;
  for (int pauses = 1; atomic_load_explicit(&worker->serving, memory_order_acquire) == ticket; pauses++)
    if (waited(pauses, &since) > PATIENCE_NANOSECONDS) sched_yield(); /* more threads than CPUs: it may wait for ours */
}

/* Runs a step in some pieces, 1 < pieces <= threads, and returns the status of a kernel that failed, or 0. */
static int32_t run_on_pool(struct pool *pool, const struct frame *frame, const struct step *step, int32_t pieces) {
  pool->job = (struct job){frame, step, pieces};
  uint64_t ticket = announce(pool, pieces);
  if (atomic_load_explicit(&pool->sleepers, memory_order_relaxed)) wake_sleepers(pool);
  serve_slice(pool, 0, 0, 0);
  wake_sleepers(pool); /* those that fell asleep just then */
  if (looks(ticket)) atomic_store_explicit(&pool->members[0].cpu, sched_getcpu(), memory_order_relaxed);
  serve_piece(pool, 0, ticket, 0);
  for (int32_t i = 1; i < pieces; i++) finish_piece(&pool->members[i], ticket);
  for (int32_t i = 1; i < pieces; i++) wait_for(&pool->members[i], ticket);
  int32_t status = atomic_load_explicit(&pool->status, memory_order_relaxed);
  if (status) atomic_store_explicit(&pool->status, 0, memory_order_relaxed);
  return status;
}
