/* A plugin for QEMU's user mode: counts the instructions of the guest and tells on standard error how many there were.
 *
 *   cc -shared -fPIC -O2 instruction_count.c -o instruction_count.so
 *   QEMU_CPU=neoverse-n1 qemu-aarch64 -plugin ./instruction_count.so PROGRAM
 *
 * The few declarations of the plugin interface (version 1) that it needs are spelled out, so it builds without QEMU's
 * headers. Blocks of instructions are counted when they are entered: a fault within one counts all of it. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef uint64_t plugin_id;
typedef struct qemu_plugin_tb block;
typedef struct qemu_info info;

size_t qemu_plugin_tb_n_insns(const block *);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, block *));
void qemu_plugin_register_vcpu_tb_exec_inline(block *, int operation, void *counter, uint64_t amount);
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);

#define PUBLIC __attribute__((visibility("default")))
#define ADD_64_BITS 0

PUBLIC int qemu_plugin_version = 1;
PUBLIC int qemu_plugin_install(plugin_id, const info *, int, char **);

static uint64_t executed;

static void on_translation(plugin_id id, block *translated) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_inline(translated, ADD_64_BITS, &executed, qemu_plugin_tb_n_insns(translated));
}

static void at_exit(plugin_id id, void *unused) {
  (void)id;
  (void)unused;
  fprintf(stderr, "instructions %llu\n", (unsigned long long)executed);
}

int qemu_plugin_install(plugin_id id, const info *about, int count, char **arguments) {
  (void)about;
  (void)count;
  (void)arguments;
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_atexit_cb(id, at_exit, NULL);
  return 0;
}
