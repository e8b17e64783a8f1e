/* cpu.c - the clock, when we run, and the CPU time of a cgroup from its own counters. */
#include "cpu.h"

#include <errno.h>
#include <linux/sched.h>
#include <linux/sched/types.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The least that the kernel takes. */
#define SHORTEST_SLICE_NS 100000u

/* cpu.stat's three lines that matter come first; the file may be longer. */
#define COUNTER_BYTES 512

uint64_t clock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

int cpu_be_prompt(void)
{
	struct sched_attr attributes;

	/* All else stays as the operator wants it: without privilege a nice value cannot be lowered. */
	if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0))
		return errno;
	attributes.sched_flags |= SCHED_FLAG_RESET_ON_FORK;
	attributes.sched_runtime = SHORTEST_SLICE_NS;
	return syscall(SYS_sched_setattr, 0, &attributes, 0) ? errno : 0;
}

static int read_text(int fd, char *text)
{
	ssize_t got = pread(fd, text, COUNTER_BYTES - 1, 0);

	if (got < 0)
		return errno;
	text[got] = 0;
	return 0;
}

static int parse_number(const char *text, uint64_t *value)
{
	if (*text < '0' || *text > '9')
		return EBADMSG;
	for (*value = 0; *text >= '0' && *text <= '9'; text++)
		*value = *value * 10 + (uint64_t)(*text - '0');
	return 0;
}

static int read_number(int fd, uint64_t *value)
{
	char text[COUNTER_BYTES];
	int error = read_text(fd, text);

	return error ? error : parse_number(text, value);
}

static int parse_field(const char *text, const char *name, uint64_t *value)
{
	const char *place = strstr(text, name);

	return place ? parse_number(place + strlen(name), value) : EBADMSG;
}

static int read_cpu_stat(int fd, struct cpu_time *time)
{
	char text[COUNTER_BYTES];
	int error = read_text(fd, text);

	if (!error)
		error = parse_field(text, "usage_usec ", &time->total_ns);
	if (!error)
		error = parse_field(text, "user_usec ", &time->user_ns);
	if (!error)
		error = parse_field(text, "system_usec ", &time->system_ns);
	if (error)
		return error;
	time->total_ns *= 1000;
	time->user_ns *= 1000;
	time->system_ns *= 1000;
	return 0;
}

int cpu_read_total(const int *counters, size_t count, uint64_t *total_ns)
{
	struct cpu_time time;
	int error;

	if (count != 1)
		return read_number(counters[0], total_ns);
	error = read_cpu_stat(counters[0], &time);
	*total_ns = time.total_ns;
	return error;
}

int cpu_read(const int *counters, size_t count, struct cpu_time *time)
{
	int error;

	if (count == 1)
		return read_cpu_stat(counters[0], time);
	error = read_number(counters[0], &time->total_ns);
	if (!error)
		error = read_number(counters[1], &time->user_ns);
	return error ? error : read_number(counters[2], &time->system_ns);
}

static uint64_t since(uint64_t start, uint64_t end)
{
	return end > start ? end - start : 0;
}

struct cpu_time cpu_since(struct cpu_time start, struct cpu_time end)
{
	return (struct cpu_time){ since(start.total_ns, end.total_ns),
				  since(start.user_ns, end.user_ns),
				  since(start.system_ns, end.system_ns) };
}
