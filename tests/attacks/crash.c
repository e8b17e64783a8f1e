/* Attack 29: a child dies of SIGSEGV. Says the limit of its dump, soft and hard, its signal, and whether it dumped. */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	struct rlimit limit;
	int status;

	getrlimit(RLIMIT_CORE, &limit);
	if (!fork())
		*(volatile int *)8 = 1;
	wait(&status);
	printf("%lu %lu %d %d\n", limit.rlim_cur, limit.rlim_max, WTERMSIG(status), WCOREDUMP(status) != 0);
	return 0;
}
