/* Decodes stdin, one block of the runtime's decode.c, to stdout, and prints its checksum on stderr: decode BYTES.
 * Status 3: the block is damaged.  Compiled behind that file. */
int main(int argc, char **argv) {
  static uint8_t input[1 << 22];
  size_t bytes = argc == 2 ? strtoull(argv[1], NULL, 10) : 0, size = fread(input, 1, sizeof input, stdin);
  /* Of exactly these sizes, so that a sanitizer sees a step over the end. */
  uint8_t *block = malloc(size ? size : 1), *out = malloc(bytes ? bytes : 1);
  if (!block || !out) return 2;
  memcpy(block, input, size);
  int whole = decode_block(block, size, out, bytes);
  if (whole) {
    fwrite(out, 1, bytes, stdout);
    fprintf(stderr, "%08x", crc32_of(out, bytes));
  }
  free(block);
  free(out);
  return whole ? 0 : 3;
}
