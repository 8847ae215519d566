/* Bare instructions, as fast as they go: what the machine can reach, and how far from it kernels are.
 *
 * Every function has the same type: `count` rounds over buffers that the caller owns.  How much work a round is stands in
 * roofline.py.  Accumulators are as many as hide the latency, and nothing else is in the loop.
 */
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIVE(step) step(0) step(1) step(2) step(3) step(4)
#define TWELVE(step) FIVE(step) step(5) step(6) step(7) step(8) step(9) step(10) step(11)

#if defined(__x86_64__)

#define VECTORS                                                                                                      \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", \
      "xmm14", "xmm15"

#define LOOP(name, before, body)                                             \
  void name(int64_t count, const void *in, void *out) {                      \
    __asm__ volatile(before "1:\n" body "dec %0\njnz 1b\nvzeroupper\n"       \
                     : "+r"(count)                                           \
                     : "r"(in), "r"(out)                                     \
                     : "memory", "cc", VECTORS);                             \
  }

#define CLEAR(i) "vpxor %%xmm" #i ",%%xmm" #i ",%%xmm" #i "\n"
#define CLEAR_ALL TWELVE(CLEAR) CLEAR(12) CLEAR(13) CLEAR(14) CLEAR(15)

#define VNNI_ZMM(i) "vpdpbusd %%zmm12,%%zmm13,%%zmm" #i "\n"
#define VNNI_YMM(i) "%{vex%} vpdpbusd %%ymm12,%%ymm13,%%ymm" #i "\n"
#define PMADDWD(i) "vpmaddwd %%ymm12,%%ymm13,%%ymm14\nvpaddd %%ymm14,%%ymm" #i ",%%ymm" #i "\n"
#define FMA_ZMM(i) "vfmadd231ps %%zmm12,%%zmm13,%%zmm" #i "\n"
#define FMA_YMM(i) "vfmadd231ps %%ymm12,%%ymm13,%%ymm" #i "\n"

LOOP(vnni_zmm, CLEAR_ALL, TWELVE(VNNI_ZMM))
LOOP(vnni_ymm, CLEAR_ALL, TWELVE(VNNI_YMM))
LOOP(pmaddwd_ymm, CLEAR_ALL, TWELVE(PMADDWD))
LOOP(fma_zmm, CLEAR_ALL, TWELVE(FMA_ZMM))
LOOP(fma_ymm, CLEAR_ALL, TWELVE(FMA_YMM))

/* Accumulators to bytes, by what the shortest epilogues do: convert, multiply, round, narrow twice, bring in order.
 * `in` begins with a number that would be a denormal multiplier, which takes a hundred times as long: it is left out. */
#define RESCALE(v, i)                                                                                              \
  "vcvtdq2ps 64+64*" #i "(%1),%%" #v #i "\nvmulps 64+64*" #i "(%1),%%" #v #i ",%%" #v #i "\nvcvtps2dq %%" #v #i ",%%" \
  #v #i "\n"
#define NARROW(v, move)                                                                \
  "vpackssdw %%" #v "1,%%" #v "0,%%" #v "0\nvpackssdw %%" #v "3,%%" #v "2,%%" #v "2\n" \
  "vpackuswb %%" #v "2,%%" #v "0,%%" #v "0\nvpermd %%" #v "0,%%" #v "15,%%" #v "0\n" move " %%" #v "0,(%2)\n"

LOOP(rescale_zmm, CLEAR_ALL, RESCALE(zmm, 0) RESCALE(zmm, 1) RESCALE(zmm, 2) RESCALE(zmm, 3) NARROW(zmm, "vmovdqu64"))
LOOP(rescale_ymm, CLEAR_ALL, RESCALE(ymm, 0) RESCALE(ymm, 1) RESCALE(ymm, 2) RESCALE(ymm, 3) NARROW(ymm, "vmovdqu"))

/* `in` starts with an int64: bytes to read, a multiple of 512.  A round reads them all. */
#define READ_ZMM(i) "vmovdqu64 64*" #i "(%1),%%zmm" #i "\n"
#define READ_YMM(i) "vmovdqu 64*" #i "(%1),%%ymm" #i "\nvmovdqu 64*" #i "+32(%1),%%ymm15\n"
#define EIGHT(step) FIVE(step) step(5) step(6) step(7)
#define READER(name, body)                                                                   \
  void name(int64_t count, const void *in, void *out) {                                      \
    int64_t bytes;                                                                           \
    (void)out;                                                                               \
    memcpy(&bytes, in, sizeof bytes);                                                        \
    while (count--) {                                                                        \
      const char *at = in;                                                                   \
      int64_t left = bytes / 512;                                                            \
      __asm__ volatile("1:\n" body "add $512,%1\ndec %0\njnz 1b\nvzeroupper\n"               \
                       : "+r"(left), "+r"(at)                                                \
                       :                                                                     \
                       : "memory", "cc", VECTORS);                                           \
    }                                                                                        \
  }
READER(read_zmm, EIGHT(READ_ZMM))
READER(read_ymm, EIGHT(READ_YMM))

/* Four accumulator tiles of two by two operands.  The kernel grants tiles to a process that asks (ARCH_REQ_XCOMP_PERM). */
void amx_tiles(int64_t count, const void *in, void *out) {
  struct {
    uint8_t palette, start, reserved[14];
    uint16_t columns[16];
    uint8_t rows[16];
  } configuration = {.palette = 1};
  (void)in, (void)out;
  syscall(SYS_arch_prctl, 0x1023, 18);
  for (int tile = 0; tile < 8; tile++) configuration.columns[tile] = 64, configuration.rows[tile] = 16;
  __asm__ volatile(
      "ldtilecfg (%1)\n"
      "tilezero %%tmm0\ntilezero %%tmm1\ntilezero %%tmm2\ntilezero %%tmm3\n"
      "tilezero %%tmm4\ntilezero %%tmm5\ntilezero %%tmm6\ntilezero %%tmm7\n"
      "1:\n"
      "tdpbusd %%tmm6,%%tmm4,%%tmm0\ntdpbusd %%tmm7,%%tmm4,%%tmm1\n"
      "tdpbusd %%tmm6,%%tmm5,%%tmm2\ntdpbusd %%tmm7,%%tmm5,%%tmm3\n"
      "dec %0\njnz 1b\ntilerelease\n"
      : "+r"(count)
      : "r"(&configuration)
      : "memory", "cc");
}

#elif defined(__aarch64__)

#define VECTORS                                                                                                        \
  "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", \
      "v18", "v19"

#define LOOP(name, body)                                                               \
  void name(int64_t count, const void *in, void *out) {                                \
    __asm__ volatile(".arch armv8.6-a+dotprod+i8mm\n"                                  \
                     "movi v12.16b,#0\nmovi v13.16b,#0\nmovi v14.16b,#0\nmovi v15.16b,#0\n" \
                     "1:\n" body "subs %0,%0,#1\nb.ne 1b\n"                            \
                     : "+r"(count)                                                     \
                     : "r"(in), "r"(out)                                               \
                     : "memory", "cc", VECTORS);                                       \
  }

#define SMLAL(i)                                                                              \
  "smull v16.8h,v12.8b,v13.8b\nsmlal2 v16.8h,v12.16b,v13.16b\nsadalp v" #i ".4s,v16.8h\n"
#define SMULL(i) "smull v16.8h,v12.8b,v13.8b\nsadalp v" #i ".4s,v16.8h\n"
#define SDOT(i) "sdot v" #i ".4s,v12.16b,v13.16b\n"
#define SMMLA(i) "smmla v" #i ".4s,v12.16b,v13.16b\n"
#define FMLA(i) "fmla v" #i ".4s,v12.4s,v13.4s\n"

LOOP(smlal, TWELVE(SMLAL))
LOOP(smull, TWELVE(SMULL))
LOOP(sdot, TWELVE(SDOT))
LOOP(smmla, TWELVE(SMMLA))
LOOP(fmla, TWELVE(FMLA))

/* Accumulators to bytes, by what the shortest epilogues do: convert, multiply, round by an addition, narrow twice. */
#define RESCALE(i)                                                                                         \
  "ldr q" #i ",[%1,#64+64*" #i "]\nscvtf v" #i ".4s,v" #i ".4s\nfmul v" #i ".4s,v" #i ".4s,v12.4s\nfadd v" #i \
  ".4s,v" #i ".4s,v13.4s\n"
LOOP(rescale, RESCALE(0) RESCALE(1) RESCALE(2) RESCALE(3)
     "uzp1 v0.8h,v0.8h,v1.8h\nuzp1 v2.8h,v2.8h,v3.8h\nsqxtn v0.8b,v0.8h\nsqxtn2 v0.16b,v2.8h\nstr q0,[%2]\n")

/* `in` starts with an int64: bytes to read, a multiple of 512.  A round reads them all. */
void read_all(int64_t count, const void *in, void *out) {
  int64_t bytes;
  (void)out;
  memcpy(&bytes, in, sizeof bytes);
  while (count--) {
    const char *at = in;
    int64_t left = bytes / 128;
    __asm__ volatile("1:\nldp q0,q1,[%1],#32\nldp q2,q3,[%1],#32\nldp q4,q5,[%1],#32\nldp q6,q7,[%1],#32\n"
                     "subs %0,%0,#1\nb.ne 1b\n"
                     : "+r"(left), "+r"(at)
                     :
                     : "memory", "cc", VECTORS);
  }
}

#endif
