/* Prints how many CPUs the control groups described by files allow, 0 for no limit: quota MEMBERSHIP MOUNTS.
 * Compiled behind the runtime's quota.c. */
int main(int argc, char **argv) {
  int32_t cpus = argc == 3 ? quota_cpus(argv[1], argv[2]) : -1;
  printf("%d\n", cpus == INT32_MAX ? 0 : (int)cpus);
  return 0;
}
