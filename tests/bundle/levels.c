/* Chooses a level for a machine described on the command line: levels WANTED|- UNCHECKED XCR0 TILES WORD... (hexadecimal).
 * Compiled behind a bundle's translation unit. */
int main(int argc, char **argv) {
  struct machine machine = {0};
  const struct level *level = NULL;
  const char *wanted = strcmp(argv[1], "-") ? argv[1] : NULL;
  machine.xcr0 = (uint32_t)strtoul(argv[3], NULL, 16);
  machine.tiles_permitted = atoi(argv[4]);
  for (int i = 0; i < WORDS && 5 + i < argc; i++) machine.words[i] = strtoull(argv[5 + i], NULL, 16);
  int status = choose_level(&machine, LEVELS, LEVEL_COUNT, wanted, atoi(argv[2]), &level);
  printf("%s\n", status ? octavo_bundle_last_error() : level->name);
  return status;
}
