/*
 * linger WAY: leave a process behind that ignores every signal, keeps stdout open and never ends.
 *
 *   fork       a child
 *   session    a child in a session of its own
 *   twice      a grandchild whose parent is gone, in a session of its own
 *   daemon     as daemon(3) makes it
 *   reaper     the grandchild of a main process that takes in orphans
 *   reapers    the same, of a child that does and that lives on
 *
 * The main process exits once it has heard from what it leaves behind.
 */
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static void linger(int tell)
{
	sigset_t all;

	for (int number = 1; number < 65; number++)
		signal(number, SIG_IGN);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	(void)!write(tell, "x", 1);
	for (;;)
		pause();
}

static void leave(const char *way, int tell)
{
	if (!strcmp(way, "session"))
		setsid();
	if (!strcmp(way, "daemon") && daemon(0, 1))
		_exit(1);
	if (!strcmp(way, "reapers") && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
		_exit(1);
	if (strcmp(way, "fork") && strcmp(way, "session") && strcmp(way, "daemon") && fork()) {
		if (!strcmp(way, "reapers"))
			linger(tell);
		_exit(0);
	}
	if (!strcmp(way, "twice"))
		setsid();
	linger(tell);
}

int main(int argc, char **argv)
{
	int ends[2];
	char byte;

	if (argc != 2 || pipe(ends))
		return 1;
	if (!strcmp(argv[1], "reaper") && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
		return 1;
	if (!fork())
		leave(argv[1], ends[1]);
	close(ends[1]);
	return read(ends[0], &byte, 1) == 1 && write(1, "left\n", 5) == 5 ? 0 : 1;
}
