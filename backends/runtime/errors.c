/* Messages: a fixed sentence for each status, and a buffer per thread for the particulars. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[512];

__attribute__((format(printf, 2, 3))) static int fail(enum octavo_bundle_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return (int)status;
}

const char *octavo_bundle_last_error(void) { return message; }

const char *octavo_bundle_strerror(int status) {
  switch (status) {
    case OCTAVO_BUNDLE_OK: return "success";
    case OCTAVO_BUNDLE_ARGUMENT: return "invalid argument";
    case OCTAVO_BUNDLE_CPU: return "this machine lacks the instructions that the bundle needs";
    case OCTAVO_BUNDLE_LEVEL: return "the level is unknown or not supported by this machine";
    case OCTAVO_BUNDLE_WEIGHTS: return "the weights file is missing, truncated or of another bundle";
    case OCTAVO_BUNDLE_MEMORY: return "out of memory";
    case OCTAVO_BUNDLE_ALIGNMENT: return "a buffer is not aligned";
    case OCTAVO_BUNDLE_KERNEL: return "a kernel failed";
    case OCTAVO_BUNDLE_PARALLEL: return "the caller's parallel_for did not run every piece";
    default: return "unknown status";
  }
}
