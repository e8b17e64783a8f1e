/* storm N PROGRAM...: execute itself N times, then the program. N below 0: for ever. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int left = argc > 2 ? atoi(argv[1]) : 0;
	char number[16];

	if (left == 0)
		execv(argv[2], argv + 2);
	snprintf(number, sizeof number, "%d", left - 1);
	argv[1] = number;
	execv(argv[0], argv);
	return 1;
}
