#ifndef OCTAVO_QEMU_DRIVER_H
#define OCTAVO_QEMU_DRIVER_H

struct entry {
  const char *symbol;
  int (*call)(void **args, int begin, int end);
};

extern const struct entry entries[];

#endif
