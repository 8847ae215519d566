/* Decodes weights: runs of zeros and other bytes in canonical Huffman codes (bundle/huffman.py tells the format). */
#if OCTAVO_CODED_WEIGHTS

enum { CODE_BITS = 12, MOST_SYMBOLS = 256, EXACT_RUNS = 32, EXACT_BITS = 5, RUN_BITS = 30 };

struct code {
  uint8_t symbol;
  uint8_t length; /* 0: no code begins like this */
};

/* The codes of one table by their first bits. */
struct codes {
  int symbols;
  struct code of[1 << CODE_BITS];
};

/* Bits not yet used, the next one on top. */
struct bits {
  const uint8_t *next, *end;
  uint64_t window;
  int count;
};

static void refill(struct bits *bits) {
  while (bits->count <= 56 && bits->next < bits->end) {
    bits->window |= (uint64_t)*bits->next++ << (56 - bits->count);
    bits->count += 8;
  }
}

static uint32_t take_bits(struct bits *bits, int count) {
  uint32_t value = count ? (uint32_t)(bits->window >> (64 - count)) : 0;
  bits->window <<= count;
  bits->count -= count;
  return value;
}

static int read_codes(struct bits *bits, struct codes *codes) {
  if (bits->end - bits->next < 2) return 0;
  codes->symbols = bits->next[0] | bits->next[1] << 8;
  bits->next += 2;
  if (codes->symbols > MOST_SYMBOLS || bits->end - bits->next < 2 * codes->symbols) return 0;
  memset(codes->of, 0, sizeof codes->of);
  uint32_t first = 0;
  for (int i = 0; i < codes->symbols; i++, bits->next += 2) {
    uint32_t entry = bits->next[0] | (uint32_t)bits->next[1] << 8;
    struct code code = {.symbol = (uint8_t)(entry >> 4), .length = entry & 15};
    if (!code.length || code.length > CODE_BITS) return 0;
    uint32_t share = 1u << (CODE_BITS - code.length);
    if (first + share > 1u << CODE_BITS) return 0;
    for (uint32_t j = 0; j < share; j++) codes->of[first + j] = code;
    first += share;
  }
  return 1;
}

/* The next symbol, or -1. */
static int take_symbol(struct bits *bits, const struct codes *codes) {
  struct code code = codes->of[bits->window >> (64 - CODE_BITS)];
  take_bits(bits, code.length);
  return code.length && bits->count >= 0 ? code.symbol : -1;
}

/* The next run of zeros, or -1. */
static int take_run(struct bits *bits, const struct codes *codes) {
  int symbol = take_symbol(bits, codes);
  if (symbol < EXACT_RUNS) return symbol;
  int more = symbol - EXACT_RUNS + EXACT_BITS;
  if (more > RUN_BITS) return -1;
  int run = (int)(1u << more | take_bits(bits, more));
  return bits->count >= 0 ? run : -1;
}

/* Fills `out` from a block; 0 when the block is damaged.  Whatever it holds, nothing outside `out` is written. */
static int decode_block(const uint8_t *block, size_t size, uint8_t *out, size_t bytes) {
  struct codes runs, values;
  struct bits bits = {.next = block, .end = block + size};
  if (!read_codes(&bits, &runs) || !read_codes(&bits, &values)) return 0;
  for (size_t at = 0; at < bytes;) {
    if (bits.count < 2 * CODE_BITS + RUN_BITS) refill(&bits);
    if (runs.symbols) {
      int run = take_run(&bits, &runs);
      if (run < 0 || (size_t)run > bytes - at) return 0;
      memset(out + at, 0, (size_t)run);
      at += (size_t)run;
      if (at == bytes) break;
    }
    int value = take_symbol(&bits, &values);
    if (value < 0) return 0;
    out[at++] = (uint8_t)value;
  }
  return bits.next == bits.end && bits.count < 8;
}

/* CRC-32 of ISO-HDLC, as zlib computes it. */
static uint32_t crc32_of(const uint8_t *data, size_t size) {
  uint32_t table[256], crc = ~0u;
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; bit++) value = value >> 1 ^ (value & 1 ? 0xEDB88320u : 0);
    table[i] = value;
  }
  for (size_t i = 0; i < size; i++) crc = crc >> 8 ^ table[(crc ^ data[i]) & 255];
  return ~crc;
}
#endif
