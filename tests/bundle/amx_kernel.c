/* A kernel of the amx level: out[task] = left[task] (16 x 64, s8) times right (64 x 16, s8 in groups of four rows), in s32. */
#include <stdint.h>

struct config {
  uint8_t palette, start_row, reserved0[14];
  uint16_t row_bytes[8], reserved1[8];
  uint8_t rows[8], reserved2[8];
};

int32_t tiles_amx_product(void *left, void *right, void *out, int32_t begin, int32_t end) {
  static const struct config config = {.palette = 1, .row_bytes = {64, 64, 64}, .rows = {16, 16, 16}};
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm2" ::"r"(right), "r"((int64_t)64) : "memory");
  for (int32_t task = begin; task < end; task++) {
    __asm__ volatile("tilezero %tmm0");
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm1" ::"r"((int8_t *)left + 1024 * task), "r"((int64_t)64) : "memory");
    __asm__ volatile("tdpbssd %tmm2, %tmm1, %tmm0");
    __asm__ volatile("tilestored %%tmm0, (%0,%1,1)" ::"r"((int8_t *)out + 1024 * task), "r"((int64_t)64) : "memory");
  }
  __asm__ volatile("tilerelease");
  return 0;
}
