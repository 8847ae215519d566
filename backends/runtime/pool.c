/* A small pool of threads for steps of some microseconds.
 *
 * One 64-bit ticket announces a job: the upper bits count jobs, the low 16 say how many pieces it has.  The split is static and
 * worker i serves piece i; but when the launcher is done with its own piece and a worker has not begun, because it sleeps or
 * the system has no CPU for it, the launcher takes that piece too.  Whoever moves a worker's `taken` up to the ticket has the
 * piece.  A worker touches the job only with a piece in hand, for only then the launcher waits and leaves the job as it is.
 * Between jobs workers spin for a moment, since the next step of the same run is near, and then sleep.
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

enum { SPIN_NANOSECONDS = 200000, PATIENCE_NANOSECONDS = 100000, PAUSES_PER_LOOK = 32, PIECE_BITS = 16 };
enum { JOBS_PER_LOOK = 16, NO_CPU = -1 };

struct job {
  octavo_bundle_body body;
  void *state;
};

/* Words that different threads write stand on cache lines of their own. */
struct worker {
  _Alignas(ALIGNMENT) _Atomic uint64_t taken; /* ticket of the last job whose piece somebody took */
  _Atomic int cpu; /* where it was when it looked last */
  struct pool *pool;
  pthread_t thread;
  int32_t piece;
  uint32_t jobs; /* that it has seen */
};

struct pool {
  _Alignas(ALIGNMENT) _Atomic uint64_t ticket;
  struct job job;
  _Alignas(ALIGNMENT) _Atomic int32_t pending;
  _Alignas(ALIGNMENT) _Atomic int sleepers;
  _Atomic int stopping;
  _Atomic int busy;
  _Atomic int cpu; /* the launcher's */
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  pid_t process;
  struct pool *parent; /* of the process that forked this one; freed, never used */
  int32_t threads;     /* with the caller's */
  struct worker workers[];
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

/* Spins until the ticket is no longer `seen`, or for a moment. */
static uint64_t spin_for_ticket(struct pool *pool, uint64_t seen) {
  uint64_t limit = nanoseconds_now() + SPIN_NANOSECONDS;
  do {
    for (int i = 0; i < PAUSES_PER_LOOK; i++) {
      uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
      if (ticket != seen) return ticket;
      pause_cpu();
    }
  } while (nanoseconds_now() < limit);
  return seen;
}

/* The launcher stores the ticket and then looks for sleepers; a sleeper counts itself and then looks at the ticket.  Both in
 * one total order, so one of them sees the other. */
static uint64_t sleep_for_ticket(struct pool *pool, uint64_t seen) {
  uint64_t ticket;
  pthread_mutex_lock(&pool->mutex);
  atomic_fetch_add(&pool->sleepers, 1);
  while ((ticket = atomic_load(&pool->ticket)) == seen) pthread_cond_wait(&pool->wake, &pool->mutex);
  atomic_fetch_sub(&pool->sleepers, 1);
  pthread_mutex_unlock(&pool->mutex);
  return ticket;
}

static uint64_t announce(struct pool *pool, int32_t pieces) {
  uint64_t ticket = ((atomic_load(&pool->ticket) >> PIECE_BITS) + 1) << PIECE_BITS | (uint64_t)pieces;
  atomic_store(&pool->ticket, ticket);
  if (atomic_load(&pool->sleepers)) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
  }
  return ticket;
}

/* Tickets only grow, so a thread that comes late with an old one takes nothing. */
static int take_piece(struct worker *worker, uint64_t ticket) {
  uint64_t taken = atomic_load_explicit(&worker->taken, memory_order_relaxed);
  return taken < ticket && atomic_compare_exchange_strong_explicit(&worker->taken, &taken, ticket,
                                                                   memory_order_acquire, memory_order_relaxed);
}

static void serve(struct pool *pool, int32_t piece) {
  pool->job.body(pool->job.state, piece, piece + 1);
  atomic_fetch_sub_explicit(&pool->pending, 1, memory_order_release);
}

/* Whether another thread of the pool is on this CPU; all their CPUs are taken out of `left`. */
static int shares_cpu(struct worker *self, int cpu, cpu_set_t *left) {
  struct pool *pool = self->pool;
  int shared = 0;
  for (int32_t i = 0; i < pool->threads; i++) {
    if (i == self->piece) continue;
    int other = atomic_load_explicit(i ? &pool->workers[i].cpu : &pool->cpu, memory_order_relaxed);
    shared |= other == cpu && i < self->piece;
    if (other != NO_CPU) CPU_CLR(other, left);
  }
  return shared;
}

/* Moves to a CPU that no other thread of the pool is on, if the system allows any.  Then it may move the thread again. */
static void look_around(struct worker *self) {
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

static void *work(void *opaque) {
  struct worker *self = opaque;
  struct pool *pool = self->pool;
  uint64_t seen = 0;
  for (;;) {
    uint64_t ticket = spin_for_ticket(pool, seen);
    if (ticket == seen) ticket = sleep_for_ticket(pool, seen);
    seen = ticket;
    if (atomic_load(&pool->stopping)) return NULL;
    if (self->jobs++ % JOBS_PER_LOOK == 0) look_around(self);
    int32_t pieces = (int32_t)(ticket & ((1u << PIECE_BITS) - 1));
    if (self->piece < pieces && take_piece(self, ticket)) serve(pool, self->piece);
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
  size_t bytes = sizeof(struct pool) + (size_t)threads * sizeof(struct worker);
  struct pool *pool = aligned_alloc(ALIGNMENT, bytes);
  sigset_t saved;
  if (!pool) return NULL;
  memset(pool, 0, bytes);
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->wake, NULL);
  pool->process = getpid();
  pool->cpu = NO_CPU;
  block_signals(&saved);
  for (pool->threads = 1; pool->threads < threads; pool->threads++) {
    struct worker *worker = &pool->workers[pool->threads];
    worker->pool = pool;
    worker->cpu = NO_CPU;
    worker->piece = pool->threads;
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
    for (int32_t i = 1; i < pool->threads; i++) pthread_join(pool->workers[i].thread, NULL);
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

/* Runs body for the pieces [0, pieces), 1 < pieces <= threads; the caller serves piece 0, and what nobody has begun. */
static void run_on_pool(struct pool *pool, int32_t pieces, octavo_bundle_body body, void *state) {
  pool->job.body = body;
  pool->job.state = state;
  atomic_store_explicit(&pool->pending, pieces, memory_order_relaxed);
  atomic_store_explicit(&pool->cpu, sched_getcpu(), memory_order_relaxed);
  uint64_t ticket = announce(pool, pieces);
  serve(pool, 0);
  for (int32_t piece = 1; piece < pieces; piece++)
    if (take_piece(&pool->workers[piece], ticket)) serve(pool, piece);
  uint64_t limit = 0;
  for (int i = 1; atomic_load_explicit(&pool->pending, memory_order_acquire); i++) {
    pause_cpu();
    if (i % PAUSES_PER_LOOK) continue;
    uint64_t now = nanoseconds_now();
    if (!limit) limit = now + PATIENCE_NANOSECONDS;
    if (now > limit) sched_yield(); /* more threads than CPUs: the worker may be waiting for ours */
  }
}
