/* The floating-point environment that kernels compute in: round to nearest even, denormals kept, exceptions masked.
 *
 * cvtps2dq and its ARM sisters obey the thread's control register, and a caller may have changed it; so every thread that
 * runs a kernel sets the register first and puts the caller's back after.
 */
#if defined(__x86_64__)
#include <xmmintrin.h>

typedef unsigned rounding;
static rounding enter_rounding(void) {
  rounding saved = _mm_getcsr();
  _mm_setcsr(0x1F80);
  return saved;
}
static void leave_rounding(rounding saved) { _mm_setcsr(saved); }
#else
typedef uint64_t rounding;
static rounding enter_rounding(void) {
  rounding saved;
  __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
  __asm__ volatile("msr fpcr, %0" ::"r"((uint64_t)0));
  return saved;
}
static void leave_rounding(rounding saved) { __asm__ volatile("msr fpcr, %0" ::"r"(saved)); }
#endif
