/* freeze N: N parents, each held in vfork() by the next, and a last child that sleeps with all signals blocked. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	volatile int left = argc == 2 ? atoi(argv[1]) : 1;
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	while (left--)
		if (vfork())
			_exit(1);
	(void)!write(1, "frozen\n", 7);
	for (;;)
		pause();
}
