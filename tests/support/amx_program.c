/* A program of tile instructions, run on the emulator and, where the machine has tiles, on those too (-DHARDWARE): what the
 * two must agree on.  The argument names the case; 0 means it behaved. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef HARDWARE
static int prepare(void) { return (int)syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */); }
static int configured(void) {
  uint8_t bytes[64];
  __asm__ volatile("sttilecfg %0" : "=m"(bytes));
  return bytes[0] != 0;
}
static int executed(int count) { return count > 0; }
#else
int octavo_amx_emulator_install(void);
int octavo_amx_emulator_configured(void);
long octavo_amx_emulator_executed(void);
static int prepare(void) { return octavo_amx_emulator_install(); }
static int configured(void) { return octavo_amx_emulator_configured(); }
static int executed(int count) { return octavo_amx_emulator_executed() == count; }
#endif

struct config {
  uint8_t palette, start_row, reserved0[14];
  uint16_t row_bytes[8], reserved1[8];
  uint8_t rows[8], reserved2[8];
};

static struct config config = {.palette = 1, .row_bytes = {52, 60, 52, 0, 0, 0, 52}, .rows = {11, 11, 15, 0, 0, 0, 11}};
static uint8_t left[32 * 80], right[32 * 80];
static int32_t sums[16 * 20];

enum { M = 11, N = 13, K = 60, LEFT_STRIDE = 80, RIGHT_STRIDE = 72, SUM_STRIDE = 64 };

static void fill(void) {
  for (unsigned i = 0; i < sizeof left; i++) {
    left[i] = (uint8_t)(i * 37 + 11);
    right[i] = (uint8_t)(i * 101 + 5);
  }
}

static int value(uint8_t byte, int is_signed) { return is_signed ? (int8_t)byte : byte; }

static int check(const char *what, int left_signed, int right_signed) {
  for (int m = 0; m < M; m++)
    for (int n = 0; n < N; n++) {
      int32_t want = 7;
      for (int k = 0; k < K; k++)
        want += value(left[m * LEFT_STRIDE + k], left_signed) * value(right[(k / 4) * RIGHT_STRIDE + 4 * n + k % 4], right_signed);
      if (sums[m * SUM_STRIDE / 4 + n] != want) {
        fprintf(stderr, "%s: [%d][%d] is %d, not %d\n", what, m, n, sums[m * SUM_STRIDE / 4 + n], want);
        return 1;
      }
    }
  return 0;
}

#define MULTIPLY(NAME, INSTRUCTION)                                                                                   \
  static void NAME(void) {                                                                                            \
    for (int i = 0; i < 16 * 20; i++) sums[i] = 7;                                                                    \
    __asm__ volatile("ldtilecfg %0" ::"m"(config));                                                                   \
    __asm__ volatile("tilezero %%tmm6\n\ttileloadd (%0,%1,1), %%tmm0" ::"r"(sums), "r"((int64_t)SUM_STRIDE) : "memory"); \
    /* base + displacement, scaled index in a high register */                                                       \
    register int64_t stride __asm__("r13") = LEFT_STRIDE / 4;                                                         \
    __asm__ volatile("tileloadd 16(%0,%1,4), %%tmm1" ::"r"(left - 16), "r"(stride) : "memory");                       \
    register uint8_t *far __asm__("r12") = right - 0x1000;                                                            \
    __asm__ volatile("tileloaddt1 0x1000(%0,%1,8), %%tmm2" ::"r"(far), "r"((int64_t)RIGHT_STRIDE / 8) : "memory");    \
    __asm__ volatile(INSTRUCTION " %tmm2, %tmm1, %tmm0");                                                             \
    __asm__ volatile("tilestored %%tmm0, (%0,%1,1)" ::"r"(sums), "r"((int64_t)SUM_STRIDE) : "memory");                \
    __asm__ volatile("tilerelease");                                                                                  \
  }
MULTIPLY(run_ss, "tdpbssd")
MULTIPLY(run_su, "tdpbsud")
MULTIPLY(run_us, "tdpbusd")
MULTIPLY(run_uu, "tdpbuud")

static int products(void) {
  int bad = 0;
  run_ss();
  bad |= check("tdpbssd", 1, 1);
  run_su();
  bad |= check("tdpbsud", 1, 0);
  run_us();
  bad |= check("tdpbusd", 0, 1);
  run_uu();
  bad |= check("tdpbuud", 0, 0);
  return bad || configured() || !executed(4 * 8);
}

static void *zero_in_thread(void *nothing) {
  __asm__ volatile("tilezero %tmm0");
  return nothing;
}

static int stack_configuration(void) { /* rsp-based addressing, and the configuration read back */
  struct config here = config, back;
  __asm__ volatile("ldtilecfg %1\n\tsttilecfg %0" : "=m"(back) : "m"(here));
  int kept = configured() && memcmp(&here, &back, sizeof here) == 0;
  __asm__ volatile("tilerelease\n\tsttilecfg %0" : "=m"(back));
  memset(&here, 0, sizeof here);
  return !kept || memcmp(&here, &back, sizeof here) != 0;
}

static int faults(const char *name) {
  struct config bad = config;
  if (strcmp(name, "unconfigured") == 0) __asm__ volatile("tilezero %tmm0");
  if (strcmp(name, "malformed") == 0) {
    bad.rows[0] = 17;
    __asm__ volatile("ldtilecfg %0" ::"m"(bad));
  }
  if (strcmp(name, "other-instruction") == 0) __asm__ volatile("ud2");
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
  if (strcmp(name, "empty-tile") == 0) __asm__ volatile("tilezero %tmm3");
  if (strcmp(name, "shapes") == 0) __asm__ volatile("tdpbssd %tmm1, %tmm2, %tmm0");
  if (strcmp(name, "released") == 0) __asm__ volatile("tilerelease\n\ttilezero %tmm0");
  if (strcmp(name, "thread") == 0) {
    pthread_t thread;
    pthread_create(&thread, NULL, zero_in_thread, NULL);
    pthread_join(thread, NULL);
  }
  return 0;
}

int main(int argc, char **argv) {
  const char *name = argc > 1 ? argv[1] : "products";
  fill();
  if (prepare()) return 2;
  if (strcmp(name, "products") == 0) return products();
  if (strcmp(name, "stack") == 0) return stack_configuration();
  return faults(name);
}
