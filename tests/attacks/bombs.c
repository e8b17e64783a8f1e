/* Attack 67: bombs KIND: multiply for ever, by fork, vfork and exec, or threads. Each tells its first refusal. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
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
		execl("/proc/self/exe", "bombs", kind, NULL);
		_exit(1);
	}
	return pid < 0 ? errno : 0;
}

static void *multiply(void *unused)
{
	static atomic_flag told = ATOMIC_FLAG_INIT;

	for (;;) {
		int error = attempt();

		if (error && !atomic_flag_test_and_set(&told))
			dprintf(1, "%d\n", error);
	}
	return unused;
}

int main(int argc, char **argv)
{
	(void)argc;
	kind = argv[1];
	multiply(NULL);
}
