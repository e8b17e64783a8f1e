/* Attacks 69 and 70: hog CHILDREN MIB: each child, or with none it itself, fills that much memory and keeps it. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static void fill(size_t bytes)
{
	volatile char *place = malloc(bytes);

	for (size_t i = 0; place && i < bytes; i += 4096)
		place[i] = 1;
}

int main(int argc, char **argv)
{
	int children = atoi(argv[1]);
	size_t bytes = strtoul(argv[argc - 1], NULL, 0) << 20;

	signal(SIGCHLD, SIG_IGN);
	if (!children)
		fill(bytes);
	for (int i = 0; i < children; i++) {
		if (fork() == 0) {
			fill(bytes);
			break;
		}
	}
	(void)!write(1, "survived\n", 9);
	for (;;)
		pause();
}
