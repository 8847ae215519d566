/* AMX-TILE and AMX-INT8 in software, for tests on x86-64 machines that lack them.
 *
 * octavo_amx_emulator_install() puts a SIGILL handler in place.  A tile instruction then traps, is decoded from the bytes at
 * RIP, executed on this thread's own tile file, and RIP moves past it.  Anything else, and every use that the architecture
 * forbids, goes back to the action that was there before, so that the program dies of SIGILL as it would on hardware:
 *   - a tile instruction before ldtilecfg, or after tilerelease, in *this* thread;
 *   - a tile that the configuration leaves empty, or tiles of shapes that do not multiply.
 * A malformed configuration raises SIGSEGV, as the #GP of hardware does.  Loads and stores happen for real, so they stop at guard pages.
 *
 * Encodings (Intel SDM volume 2, all VEX.128.0F38.W0):
 *   49 /0 mem  NP ldtilecfg, 66 sttilecfg      49 C0  NP tilerelease      49 11:rrr:000  F2 tilezero
 *   4B /r sib  F2 tileloadd, 66 tileloaddt1, F3 tilestored
 *   5E 11:rrr:bbb  NP tdpbuud, 66 tdpbusd, F3 tdpbsud, F2 tdpbssd   (reg = accumulator, rm = first source, vvvv = second)
 *
 * Build: cc -O3 -fPIC -shared amx_emulator.c -o libamx_emulator.so
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#ifndef __x86_64__
#error "the AMX emulator runs on x86-64 only"
#endif

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };
enum prefix { NP, P66, PF3, PF2 };
enum outcome { DONE, UNDEFINED, PROTECTION };

struct tile_file {
  int configured;
  uint8_t start_row;
  uint8_t rows[TILES];
  uint16_t row_bytes[TILES];
  uint8_t data[TILES][ROWS][ROW_BYTES];
};

struct instruction {
  enum prefix prefix;
  uint8_t opcode;
  uint8_t mod, reg, rm, vvvv;
  int has_sib;
  uint8_t *address;     /* base + displacement, for memory forms */
  int64_t stride;       /* index << scale, 0 without an index */
  const uint8_t *next;
};

static _Thread_local struct tile_file tiles;
static _Atomic long executed;
static struct sigaction previous;
static _Atomic int installed;

static int64_t general_register(const ucontext_t *context, int number) {
  static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return context->uc_mcontext.gregs[order[number]];
}

static int64_t read_displacement(const uint8_t **at, int bytes) {
  int8_t one;
  int32_t four;
  if (bytes == 1) {
    memcpy(&one, *at, 1);
    *at += 1;
    return one;
  }
  memcpy(&four, *at, 4);
  *at += 4;
  return four;
}

/* ModRM memory operand.  `at` stands after the ModRM byte and is moved past SIB and displacement. */
static const uint8_t *decode_memory(struct instruction *in, const ucontext_t *context, const uint8_t *at, int x, int b) {
  int64_t base = 0;
  int base_number = in->rm;
  int rip_relative = in->mod == 0 && in->rm == 5;
  if (in->rm == 4) {
    uint8_t sib = *at++;
    int index = ((sib >> 3) & 7) | (x << 3);
    in->has_sib = 1;
    base_number = sib & 7;
    in->stride = index == 4 ? 0 : (int64_t)((uint64_t)general_register(context, index) << (sib >> 6));
  }
  int no_base = in->mod == 0 && base_number == 5;
  if (!no_base) base = general_register(context, base_number | (b << 3));
  if (in->mod == 1) base += read_displacement(&at, 1);
  if (in->mod == 2 || no_base) base += read_displacement(&at, 4);
  if (rip_relative) base += (int64_t)at; /* tile instructions carry no immediate: `at` is the next instruction */
  in->address = (uint8_t *)base;
  return at;
}

static int decode(struct instruction *in, const ucontext_t *context) {
  const uint8_t *at = (const uint8_t *)context->uc_mcontext.gregs[REG_RIP];
  memset(in, 0, sizeof *in);
  if (at[0] != 0xC4) return 0;
  int r = !(at[1] & 0x80), x = !(at[1] & 0x40), b = !(at[1] & 0x20);
  int map = at[1] & 31, w = at[2] >> 7, l = (at[2] >> 2) & 1;
  static const enum prefix prefixes[4] = {NP, P66, PF3, PF2};
  in->prefix = prefixes[at[2] & 3];
  in->vvvv = (uint8_t)(~(at[2] >> 3) & 15);
  in->opcode = at[3];
  if (map != 2 || w || l || r) return 0;
  if (in->opcode != 0x49 && in->opcode != 0x4B && in->opcode != 0x5E) return 0;
  in->mod = at[4] >> 6;
  in->reg = (at[4] >> 3) & 7;
  in->rm = at[4] & 7;
  if (in->mod == 3 && b) return 0;
  in->next = in->mod == 3 ? at + 5 : decode_memory(in, context, at + 5, x, b);
  return 1;
}

static void clear_file(void) { memset(&tiles, 0, sizeof tiles); }

static int reserved_bytes_are_zero(const uint8_t *config) {
  for (int i = 2; i < 16; i++)
    if (config[i]) return 0;
  for (int i = 32; i < 48; i++)
    if (config[i]) return 0;
  for (int i = 56; i < 64; i++)
    if (config[i]) return 0;
  return 1;
}

static enum outcome load_configuration(const uint8_t *memory) {
  uint8_t config[64];
  memcpy(config, memory, sizeof config);
  if (config[0] > 1) return PROTECTION;
  if (config[0] == 0) {
    clear_file();
    return DONE;
  }
  if (!reserved_bytes_are_zero(config)) return PROTECTION;
  for (int i = 0; i < TILES; i++) {
    uint16_t row_bytes;
    memcpy(&row_bytes, config + 16 + 2 * i, 2);
    if (row_bytes > ROW_BYTES || config[48 + i] > ROWS || !row_bytes != !config[48 + i]) return PROTECTION;
  }
  clear_file();
  memcpy(tiles.row_bytes, config + 16, sizeof tiles.row_bytes);
  memcpy(tiles.rows, config + 48, sizeof tiles.rows);
  tiles.start_row = config[1];
  tiles.configured = 1;
  return DONE;
}

static enum outcome store_configuration(uint8_t *memory) {
  uint8_t config[64] = {0};
  if (tiles.configured) {
    config[0] = 1;
    config[1] = tiles.start_row;
    memcpy(config + 16, tiles.row_bytes, sizeof tiles.row_bytes);
    memcpy(config + 48, tiles.rows, sizeof tiles.rows);
  }
  memcpy(memory, config, sizeof config);
  return DONE;
}

static int usable(int tile) { return tiles.configured && tile < TILES && tiles.rows[tile] && tiles.row_bytes[tile]; }

static enum outcome load_tile(int tile, const uint8_t *memory, int64_t stride) {
  if (!usable(tile)) return UNDEFINED;
  for (int row = tiles.start_row; row < tiles.rows[tile]; row++) {
    memset(tiles.data[tile][row], 0, ROW_BYTES);
    memcpy(tiles.data[tile][row], memory + row * stride, tiles.row_bytes[tile]);
  }
  memset(tiles.data[tile][tiles.rows[tile]], 0, (size_t)(ROWS - tiles.rows[tile]) * ROW_BYTES);
  tiles.start_row = 0;
  return DONE;
}

static enum outcome store_tile(int tile, uint8_t *memory, int64_t stride) {
  if (!usable(tile)) return UNDEFINED;
  for (int row = tiles.start_row; row < tiles.rows[tile]; row++)
    memcpy(memory + row * stride, tiles.data[tile][row], tiles.row_bytes[tile]);
  tiles.start_row = 0;
  return DONE;
}

static enum outcome zero_tile(int tile) {
  if (!usable(tile)) return UNDEFINED;
  memset(tiles.data[tile], 0, sizeof tiles.data[tile]);
  tiles.start_row = 0;
  return DONE;
}

static int shapes_multiply(int c, int a, int b) {
  if (!usable(c) || !usable(a) || !usable(b) || c == a || c == b || a == b) return 0;
  if (tiles.row_bytes[c] % 4 || tiles.row_bytes[a] % 4 || tiles.row_bytes[b] % 4) return 0;
  return tiles.rows[c] == tiles.rows[a] && tiles.row_bytes[c] == tiles.row_bytes[b] &&
         tiles.row_bytes[a] / 4 == tiles.rows[b];
}

/* c[m][n] += sum over i < 4 of a[m][4k + i] * b[k][4n + i], wrapping in 32 bits. */
static enum outcome dot_product(int c, int a, int b, int a_signed, int b_signed) {
  if (!shapes_multiply(c, a, b)) return UNDEFINED;
  for (int m = 0; m < tiles.rows[c]; m++) {
    uint32_t sums[ROWS];
    memcpy(sums, tiles.data[c][m], sizeof sums);
    for (int k = 0; k < tiles.rows[b]; k++) {
      int32_t left[4];
      for (int i = 0; i < 4; i++) {
        uint8_t byte = tiles.data[a][m][4 * k + i];
        left[i] = a_signed ? (int8_t)byte : byte;
      }
      for (int n = 0; n < tiles.row_bytes[c] / 4; n++) {
        const uint8_t *bytes = &tiles.data[b][k][4 * n];
        int32_t sum = 0;
        for (int i = 0; i < 4; i++) sum += left[i] * (b_signed ? (int8_t)bytes[i] : bytes[i]);
        sums[n] += (uint32_t)sum;
      }
    }
    memcpy(tiles.data[c][m], sums, sizeof sums);
  }
  tiles.start_row = 0;
  return DONE;
}

static enum outcome execute_configuration(const struct instruction *in) {
  if (in->vvvv) return UNDEFINED;
  if (in->mod != 3) {
    if (in->reg) return UNDEFINED;
    if (in->prefix == NP) return load_configuration(in->address);
    return in->prefix == P66 ? store_configuration(in->address) : UNDEFINED;
  }
  if (in->prefix == PF2 && in->rm == 0) return zero_tile(in->reg);
  if (in->prefix != NP || in->reg || in->rm) return UNDEFINED;
  clear_file(); /* tilerelease */
  return DONE;
}

static enum outcome execute_transfer(const struct instruction *in) {
  if (in->vvvv || in->mod == 3 || !in->has_sib || in->prefix == NP) return UNDEFINED;
  if (in->prefix == PF3) return store_tile(in->reg, in->address, in->stride);
  return load_tile(in->reg, in->address, in->stride);
}

static enum outcome execute(const struct instruction *in) {
  if (in->opcode == 0x49) return execute_configuration(in);
  if (in->opcode == 0x4B) return execute_transfer(in);
  if (in->mod != 3) return UNDEFINED;
  int a_signed = in->prefix == PF2 || in->prefix == PF3;
  int b_signed = in->prefix == PF2 || in->prefix == P66;
  return dot_product(in->reg, in->rm, in->vvvv, a_signed, b_signed);
}

static void on_illegal_instruction(int signal_number, siginfo_t *info, void *opaque) {
  ucontext_t *context = opaque;
  struct instruction in;
  enum outcome outcome = decode(&in, context) ? execute(&in) : UNDEFINED;
  (void)signal_number;
  (void)info;
  if (outcome == DONE) {
    atomic_fetch_add_explicit(&executed, 1, memory_order_relaxed);
    context->uc_mcontext.gregs[REG_RIP] = (greg_t)in.next;
    return;
  }
  if (outcome == PROTECTION) {
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
  }
  sigaction(SIGILL, &previous, NULL); /* the instruction runs again and meets the action that was there before */
  atomic_store(&installed, 0);
}

/* 0 on success; a second call is harmless. */
int octavo_amx_emulator_install(void) {
  struct sigaction action;
  if (atomic_exchange(&installed, 1)) return 0;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_illegal_instruction;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  return sigaction(SIGILL, &action, &previous);
}

int octavo_amx_emulator_remove(void) {
  if (!atomic_exchange(&installed, 0)) return 0;
  return sigaction(SIGILL, &previous, NULL);
}

/* Tile instructions executed so far in the whole process: lets a test see that its kernel really used AMX. */
long octavo_amx_emulator_executed(void) { return atomic_load(&executed); }

/* Whether this thread holds a tile configuration: a well-behaved kernel leaves none behind. */
int octavo_amx_emulator_configured(void) { return tiles.configured; }
