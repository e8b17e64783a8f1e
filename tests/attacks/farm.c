/*
 * Attacks 68 and 81: farm KIND COUNT: that many children at most, who are never waited for.
 *
 * "zombies" exit at once, "orphans" are children of such, "sleepers" live. When it has them, or is refused one,
 * the parent tells how many and the refusal, calls itself "full COUNT", and sleeps, unless it is "orphans".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void live(const char *kind)
{
	if (!strcmp(kind, "sleepers"))
		pause();
	if (!strcmp(kind, "orphans"))
		fork();
	_exit(0);
}

int main(int argc, char **argv)
{
	int count = 0, wanted = atoi(argv[argc - 1]), error = 0;
	char name[16];

	while (count < wanted && !error) {
		pid_t pid = fork();

		if (pid == 0)
			live(argv[1]);
		else if (pid < 0)
			error = errno;
		else
			count++;
		if (pid > 0 && !strcmp(argv[1], "orphans"))
			waitpid(pid, NULL, 0);
	}
	dprintf(1, "%d %d\n", count, error);
	if (!strcmp(argv[1], "orphans"))
		return 0;
	snprintf(name, sizeof name, "full %d", count);
	prctl(PR_SET_NAME, name);
	for (;;)
		pause();
}
