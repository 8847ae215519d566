/* A plugin for QEMU's user mode: counts the instructions of the guest and tells on standard error how many there were.
 *
 *   cc -shared -fPIC -O2 instruction_count.c -o instruction_count.so
 *   QEMU_CPU=neoverse-n1 qemu-aarch64 -plugin ./instruction_count.so[,steps=on] PROGRAM
 *
 * With steps=on it also tells how many belong to each step of a bundle: a step begins with the first block of its
 * function (..._stepN, which calls the kernel) and lasts until the next begins, so what lies between two belongs to the
 * first.
 *
 * The few declarations of the plugin interface (version 1) that it needs are spelled out, so it builds without QEMU's
 * headers. Blocks of instructions are counted when they are entered: a fault within one counts all of it. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
typedef struct qemu_plugin_tb block;
typedef struct qemu_plugin_insn instruction;
typedef struct qemu_info info;

size_t qemu_plugin_tb_n_insns(const block *);
instruction *qemu_plugin_tb_get_insn(const block *, size_t);
const char *qemu_plugin_insn_symbol(const instruction *);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, block *));
void qemu_plugin_register_vcpu_tb_exec_inline(block *, int operation, void *counter, uint64_t amount);
void qemu_plugin_register_vcpu_tb_exec_cb(block *, void (*)(unsigned cpu, void *), int registers, void *);
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);

#define PUBLIC __attribute__((visibility("default")))
enum { ADD_64_BITS = 0, NO_REGISTERS = 0, MOST_STEPS = 4096 };

PUBLIC int qemu_plugin_version = 1;
PUBLIC int qemu_plugin_install(plugin_id, const info *, int, char **);

/* A block of code; `step` is -1 outside the functions of steps. */
struct counted {
  uint64_t instructions;
  int step;
};

static uint64_t executed, of_step[MOST_STEPS];
static int current = -1;

static int step_of(const char *symbol) {
  const char *number = symbol ? strstr(symbol, "_step") : NULL;
  char *end;
  long step = number ? strtol(number + 5, &end, 10) : -1;
  return step >= 0 && step < MOST_STEPS && end > number + 5 && !*end ? (int)step : -1;
}

static void on_execution(unsigned cpu, void *data) {
  const struct counted *counted = data;
  (void)cpu;
  if (counted->step >= 0) current = counted->step;
  if (current >= 0) of_step[current] += counted->instructions;
}

static void on_translation(plugin_id id, block *translated) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_inline(translated, ADD_64_BITS, &executed, qemu_plugin_tb_n_insns(translated));
}

static void on_translation_in_steps(plugin_id id, block *translated) {
  struct counted *counted = malloc(sizeof *counted);
  on_translation(id, translated);
  if (!counted) abort();
  counted->instructions = qemu_plugin_tb_n_insns(translated);
  counted->step = step_of(qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(translated, 0)));
  qemu_plugin_register_vcpu_tb_exec_cb(translated, on_execution, NO_REGISTERS, counted);
}

static void at_exit(plugin_id id, void *unused) {
  (void)id;
  (void)unused;
  fprintf(stderr, "instructions %llu\n", (unsigned long long)executed);
  for (int step = 0; step < MOST_STEPS; step++)
    if (of_step[step]) fprintf(stderr, "step %d %llu\n", step, (unsigned long long)of_step[step]);
}

int qemu_plugin_install(plugin_id id, const info *about, int count, char **arguments) {
  int steps = count && !strcmp(arguments[0], "steps=on");
  (void)about;
  qemu_plugin_register_vcpu_tb_trans_cb(id, steps ? on_translation_in_steps : on_translation);
  qemu_plugin_register_atexit_cb(id, at_exit, NULL);
  return 0;
}
