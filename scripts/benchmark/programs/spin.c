/*
 * spin.c - arithmetic and nothing else, for as long as it is told to.
 *
 *   spin ROUNDS    a hundred thousand steps a round; 0 is without end
 *
 * It prints the nanoseconds of CPU time that its rounds took.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t spent_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t spin_once(uint64_t x)
{
	for (int i = 0; i < 100000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	return x;
}

int main(int count, char **arguments)
{
	uint64_t rounds = count > 1 ? strtoull(arguments[1], NULL, 10) : 1;
	uint64_t began_ns = spent_ns(), x = 88172645463325252u;

	for (uint64_t i = 0; !rounds || i < rounds; i++)
		x = spin_once(x);
	printf("%llu\n", (unsigned long long)(spent_ns() - began_ns));
	return x == 0;
}
