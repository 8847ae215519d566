/* How many CPUs the control groups of this process let it use at a time.
 *
 * A container on a large machine often sees all of its CPUs and may use the time of two.  More threads than that are
 * stopped together once the period's time is spent, in the middle of a run.
 *
 * Documentation/admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (cpu.cfs_quota_us) of Linux.
 */
#include <limits.h>

enum { GROUP_LENGTH = 1024 };

/* Whole CPUs, rounded up, of one file of version 2 ("200000 100000", "max 100000"); INT32_MAX for no limit. */
static int32_t read_cpu_max(const char *folder) {
  char path[2 * GROUP_LENGTH];
  long long quota = 0, period = 0;
  snprintf(path, sizeof path, "%s/cpu.max", folder);
  FILE *file = fopen(path, "re");
  if (!file) return INT32_MAX;
  int found = fscanf(file, "%lld %lld", &quota, &period);
  fclose(file);
  return found == 2 && quota > 0 && period > 0 ? (int32_t)((quota + period - 1) / period) : INT32_MAX;
}

static long long read_number(const char *folder, const char *name) {
  char path[2 * GROUP_LENGTH];
  long long number = 0;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "re");
  if (!file) return 0;
  if (fscanf(file, "%lld", &number) != 1) number = 0;
  fclose(file);
  return number;
}

/* The same of the two files of version 1; the quota is -1 without a limit. */
static int32_t read_cfs_quota(const char *folder) {
  long long quota = read_number(folder, "cpu.cfs_quota_us"), period = read_number(folder, "cpu.cfs_period_us");
  return quota > 0 && period > 0 ? (int32_t)((quota + period - 1) / period) : INT32_MAX;
}

/* The least of a group and of all groups around it.  A container may see its own group as the root of the tree, under
 * another path than /proc names: what is not there is no limit. */
static int32_t least_around(const char *tree, const char *group, int32_t (*read)(const char *)) {
  char folder[2 * GROUP_LENGTH];
  int32_t least = INT32_MAX;
  size_t root = (size_t)snprintf(folder, sizeof folder, "%s", tree);
  snprintf(folder + root, sizeof folder - root, "%s", group);
  for (;;) {
    int32_t here = read(folder);
    if (here < least) least = here;
    char *slash = strrchr(folder + root, '/');
    if (!slash) return least;
    *slash = 0;
  }
}

/* Whether a comma-separated list of controllers has the CPU's. */
static int lists_cpu(const char *controllers) {
  for (const char *at = controllers; at; at = strchr(at, ',')) {
    if (*at == ',') at++;
    if (!strncmp(at, "cpu", 3) && (at[3] == 0 || at[3] == ',')) return 1;
  }
  return 0;
}

/* `membership` is /proc/self/cgroup, lines of ID:CONTROLLERS:PATH; `mounts` the folder where the trees are. */
static int32_t quota_cpus(const char *membership, const char *mounts) {
  char line[GROUP_LENGTH], tree[GROUP_LENGTH];
  int32_t least = INT32_MAX;
  FILE *file = fopen(membership, "re");
  if (!file) return least;
  while (fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group) continue;
    *group++ = 0;
    int unified = !*++controllers;
    if (!unified && !lists_cpu(controllers)) continue;
    snprintf(tree, sizeof tree, unified ? "%s" : "%s/cpu", mounts);
    int32_t here = least_around(tree, group, unified ? read_cpu_max : read_cfs_quota);
    if (here < least) least = here;
  }
  fclose(file);
  return least;
}
