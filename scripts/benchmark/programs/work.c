/*
 * work.c - a fixed piece of work that times itself, to be run inside a sandbox and outside.
 *
 *   work compute   arithmetic, no system call
 *   work calls     reads, writes and questions to the kernel, as of a program that does much of that
 *   work opens     opening, asking about and closing files of the image
 *   work faults    memory mapped, touched and given back
 *   work null      the cheapest call there is: what remains is the way into the kernel
 *
 * It prints two numbers: nanoseconds of CPU time, and of real time.
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void compute(void)
{
	volatile uint64_t sink;
	uint64_t x = 88172645463325252u;

	for (int i = 0; i < 6000000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		x += x / ((x & 1023) + 1);
	}
	sink = x;
	(void)sink;
}

static void calls(void)
{
	char block[4096] = { 0 }, byte = 0;
	int fd = memfd_create("work", MFD_CLOEXEC), ends[2];
	struct stat about;

	if (fd < 0 || pipe(ends))
		err(1, "prepare");
	for (int i = 0; i < 12000; i++) {
		off_t place = i % 16 * (off_t)sizeof block;

		if (pwrite(fd, block, sizeof block, place) < 0 || pread(fd, block, sizeof block, place) < 0 ||
		    fstat(fd, &about) || lseek(fd, 0, SEEK_SET) || write(ends[1], &byte, 1) != 1 ||
		    read(ends[0], &byte, 1) != 1 || syscall(SYS_getpid) < 0)
			err(1, "call");
	}
}

static void opens(void)
{
	struct stat about;

	for (int i = 0; i < 10000; i++) {
		int fd = open("/usr/bin/env", O_RDONLY | O_CLOEXEC);

		if (fd < 0 || fstat(fd, &about) || stat("/usr/lib", &about) || close(fd))
			err(1, "open");
	}
}

static void faults(void)
{
	size_t length = 1 << 20;

	for (int i = 0; i < 100; i++) {
		char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED)
			err(1, "mmap");
		for (size_t at = 0; at < length; at += 4096)
			memory[at] = 1;
		munmap(memory, length);
	}
}

static void null(void)
{
	for (int i = 0; i < 300000; i++)
		syscall(SYS_getppid);
}

static const struct {
	const char *name;
	void (*run)(void);
} works[] = {
	{ "compute", compute }, { "calls", calls }, { "opens", opens }, { "faults", faults }, { "null", null },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc == 2 && i < sizeof works / sizeof works[0]; i++) {
		uint64_t cpu, wall;

		if (strcmp(argv[1], works[i].name))
			continue;
		wall = now_ns(CLOCK_MONOTONIC);
		cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
		works[i].run();
		cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
		printf("%llu %llu\n", (unsigned long long)cpu,
		       (unsigned long long)(now_ns(CLOCK_MONOTONIC) - wall));
		return 0;
	}
	errx(2, "usage: work compute|calls|opens|faults|null");
}
