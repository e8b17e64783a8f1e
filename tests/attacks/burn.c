/*
 * burn COUNT MS: COUNT grandchildren, orphans all, use MS milliseconds of CPU time each and then sleep.
 *
 * The main process waits for none of them to end: it exits when all have used their time. MS below 0: they go
 * on for ever and it sleeps.
 */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void burn(long ms)
{
	struct timespec used;

	do
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	while (ms < 0 || used.tv_sec * 1000 + used.tv_nsec / 1000000 < ms);
}

int main(int argc, char **argv)
{
	int count = argc == 3 ? atoi(argv[1]) : 0, ends[2];
	long ms = argc == 3 ? atol(argv[2]) : 0;
	char byte;

	if (pipe(ends))
		return 1;
	for (int i = 0; i < count; i++) {
		pid_t child = fork();

		if (child < 0)
			return 1;
		if (child)
			continue;
		if (fork())
			_exit(0);
		burn(ms);
		(void)!write(ends[1], "x", 1);
		for (;;)
			pause();
	}
	while (count--)
		if (read(ends[0], &byte, 1) != 1)
			return 1;
	return 0;
}
