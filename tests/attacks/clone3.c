/* Attack 32: clone3() for a new user namespace, clone3() for a mere child, then a thread of the C library. */
#include <errno.h>
#include <linux/sched.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *say(void *text)
{
	puts(text);
	return NULL;
}

static int attempt(unsigned long long flags)
{
	struct clone_args how = { .flags = flags, .exit_signal = 17 };
	long pid = syscall(SYS_clone3, &how, sizeof how);

	if (pid == 0)
		_exit(0);
	return pid < 0 ? errno : 0;
}

int main(void)
{
	pthread_t thread;

	printf("%d %d\n", attempt(0x10000000), attempt(0));
	if (pthread_create(&thread, NULL, say, "thread") || pthread_join(thread, NULL))
		puts("no thread");
	return 0;
}
