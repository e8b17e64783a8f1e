/* leaderless N: the main thread ends and leaves a zombie; another thread then exits with N, or never. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static pthread_t leader;

static void *go_on(void *status)
{
	pthread_join(leader, NULL);
	if (*(int *)status < 0)
		for (;;)
			pause();
	exit(*(int *)status);
}

int main(int argc, char **argv)
{
	static int status;
	pthread_t thread;

	(void)argc;
	status = atoi(argv[1]);
	leader = pthread_self();
	if (pthread_create(&thread, NULL, go_on, &status))
		return 1;
	pthread_exit(NULL);
}
