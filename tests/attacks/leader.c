/* The main thread ends and leaves a zombie; another goes on for ever: leader spin|sleep. */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static void *go_on(void *how)
{
	for (;;)
		if (!strcmp(how, "sleep"))
			pause();
}

int main(int argc, char **argv)
{
	pthread_t thread;

	if (argc != 2 || pthread_create(&thread, NULL, go_on, argv[1]))
		return 1;
	pthread_exit(NULL);
}
