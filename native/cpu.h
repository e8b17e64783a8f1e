/* cpu.h - the clock, when we run, and the CPU time of a cgroup from its own counters. */
#ifndef JAIL_CPU_H
#define JAIL_CPU_H

#include "protocol.h"

#define CPU_COUNTERS_MAX 3
#define SECOND_NS 1000000000u

/* CLOCK_MONOTONIC, nanoseconds. */
uint64_t clock_now(void);

/*
 * Ask to be run soon after waking, in short slices: the job that this process is to end may keep
 * every processor busy. Children do not inherit it. Linux 6.12 and later take sched_runtime for the
 * slice of an ordinary process (sched_setattr(2)), older ones ignore it. Returns 0 or an errno value.
 */
int cpu_be_prompt(void);

/*
 * Read what the cgroup has used so far, all its processes together, dead ones too.
 * `count` is 3 for cgroup v1 (cpuacct.usage, .usage_user, .usage_sys: nanoseconds,
 * Documentation/admin-guide/cgroup-v1/cpuacct.rst) and 1 for v2 (cpu.stat: microseconds,
 * Documentation/admin-guide/cgroup-v2.rst). Returns 0 or an errno value.
 */
int cpu_read(const int *counters, size_t count, struct cpu_time *time);

/* The same, but the total alone. */
int cpu_read_total(const int *counters, size_t count, uint64_t *total_ns);

/* `end` less `start`, each part at least 0. */
struct cpu_time cpu_since(struct cpu_time start, struct cpu_time end);

#endif
