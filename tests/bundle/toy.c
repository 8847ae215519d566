/* Stand-ins for generated kernels, with their C ABI.  Compiled with -DK(name)=PREFIX_level_name. */
#include <stddef.h>
#include <stdint.h>
#include <math.h>

#ifndef CHANNELS
#define CHANNELS 16
#endif

/* out[i] = clamp(rint(in[i] / 0.5)) for rows of CHANNELS values: depends on the rounding mode. */
int32_t K(quantize)(void *in, void *out, int32_t begin, int32_t end) {
  const float *source = in;
  int8_t *target = out;
  for (int32_t i = begin * CHANNELS; i < end * CHANNELS; i++) {
    float value = fminf(fmaxf(source[i] / 0.5f, -128.0f), 127.0f);
    target[i] = (int8_t)lrintf(value);
  }
  return 0;
}

/* out[row][c] = bias[c] + sum over k of in[row][k] * weights[k][c], staged through scratch. */
int32_t K(dense)(void *in, void *weights, void *bias, void *scratch, void *out, int32_t begin, int32_t end) {
  const int8_t *source = in, *matrix = weights;
  const int32_t *offsets = bias;
  int32_t *sums = scratch;
  for (int32_t row = begin; row < end; row++) {
    for (int c = 0; c < CHANNELS; c++) sums[c] = offsets[c];
    for (int k = 0; k < CHANNELS; k++)
      for (int c = 0; c < CHANNELS; c++) sums[c] += source[row * CHANNELS + k] * matrix[k * CHANNELS + c];
    for (int c = 0; c < CHANNELS; c++) ((int32_t *)out)[row * CHANNELS + c] = sums[c];
  }
  return 0;
}

/* out[i] = in[i] * 0.37f + 1.0e-3f: inexact, so that the rounding mode shows. */
int32_t K(scale)(void *in, void *out, int32_t begin, int32_t end) {
  const int32_t *source = in;
  float *target = out;
  for (int32_t i = begin * CHANNELS; i < end * CHANNELS; i++) target[i] = (float)source[i] * 0.37f + 1.0e-3f;
  return 0;
}

int32_t K(broken)(void *in, void *out, int32_t begin, int32_t end) {
  (void)in, (void)out, (void)end;
  return 40 + begin;
}
