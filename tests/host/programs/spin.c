/* spin N: keep N threads busy for ever. */
#include <pthread.h>
#include <stdlib.h>

static void *spin(void *unused)
{
	for (volatile int i = 0;; i++)
		;
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	(void)argc;
	for (int i = atoi(argv[1]); i > 1; i--)
		if (pthread_create(&thread, NULL, spin, NULL))
			return 1;
	spin(NULL);
}
