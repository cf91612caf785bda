// Stands for a busy machine: loaded before libc, it now and then leaves a thread aside for a while
// between two looks at the clock, as a kernel with too much to do would.
//
//   DELAY_THREADS  beginnings of the names of the threads, with commas between them
//   DELAY_MS       how long a thread is left aside
//   DELAY_GAP_MS   how long it runs between two such moments, on average
//   DELAY_EVERY    instead of that: it is left aside at one in so many looks at the clock, so that it is
//                  between any two of them sooner or later
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static int (*real)(clockid_t, struct timespec *);

static long setting(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text ? atol(text) : otherwise;
}

static int is_named(const char *thread) {
  const char *names = getenv("DELAY_THREADS");
  while (names && *names) {
    size_t length = strcspn(names, ",");
    if (length && !strncmp(thread, names, length)) return 1;
    names += length + (names[length] == ',');
  }
  return 0;
}

static long millis(void) {
  struct timespec now;
  real(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int clock_gettime(clockid_t clock, struct timespec *out) {
  static __thread unsigned seed;
  static __thread int chosen;
  static __thread long next;
  // Every thread finds the same function: it does not matter who is first.
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  if (clock != CLOCK_MONOTONIC) return real(clock, out);
  if (!seed) {
    // A thread gets its name before it does anything that needs the clock.
    char name[17] = "";
    prctl(PR_GET_NAME, name);
    chosen = is_named(name);
    seed = 1 + (unsigned)millis() + (unsigned)(size_t)&seed;
    next = millis() + setting("DELAY_GAP_MS", 4000);
  }
  long every = setting("DELAY_EVERY", 0);
  if (chosen && every) {
    if (rand_r(&seed) % every == 0) usleep(setting("DELAY_MS", 300) * 1000);
    return real(clock, out);
  }
  if (chosen && millis() >= next) {
    usleep(setting("DELAY_MS", 300) * 1000);
    next = millis() + rand_r(&seed) % (2 * setting("DELAY_GAP_MS", 4000) + 1);
  }
  return real(clock, out);
}
