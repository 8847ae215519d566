/* Two bundles linked into one program; their runs may alternate and overlap. */
#include "other.h"
#include "toy.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float toy_in[24 * 16], toy_out[24 * 16], toy_first[24 * 16], other_in[7 * 16], other_out[7 * 16], other_first[7 * 16];

static toy_context *toy;
static other_context *other;

static int run_toy(float *output) { return toy_run(toy, (const void *const[]){toy_in}, (void *const[]){output}, NULL); }
static int run_other(float *output) { return other_run(other, (const void *const[]){other_in}, (void *const[]){output}, NULL); }

static void *toy_often(void *bad) {
  for (int i = 0; i < 300; i++) *(int *)bad |= run_toy(toy_out) || memcmp(toy_out, toy_first, sizeof toy_out);
  return NULL;
}

int main(int argc, char **argv) {
  pthread_t thread;
  int bad = 0, worse = 0;
  if (argc != 3) return 2;
  for (int i = 0; i < 24 * 16; i++) toy_in[i] = (float)(i % 37) - 18.25f;
  for (int i = 0; i < 7 * 16; i++) other_in[i] = (float)(i % 29) - 14.75f;
  if (toy_create(&toy, &(toy_options){.weights_path = argv[1]}) || other_create(&other, &(other_options){.weights_path = argv[2]})) {
    fprintf(stderr, "%s %s\n", toy_last_error(), other_last_error());
    return 3;
  }
  if (run_toy(toy_first) || run_other(other_first)) return 4;
  if (pthread_create(&thread, NULL, toy_often, &bad)) return 5;
  for (int i = 0; i < 300; i++) worse |= run_other(other_out) || memcmp(other_out, other_first, sizeof other_out);
  pthread_join(thread, NULL);
  toy_destroy(toy);
  other_destroy(other);
  return bad || worse;
}
