/* Attacks 41 and 42: one call of i386 from a 64-bit program, its arguments below 4 GiB: int80 NUMBER FAMILY. */
#include <stdio.h>
#include <stdlib.h>

static int arguments[] = { 0, 1, 0 };

int main(int argc, char **argv)
{
	int result = argc > 1 ? atoi(argv[1]) : 20;

	if (argc > 2)
		arguments[0] = atoi(argv[2]);
	/* For socketcall(2): SYS_SOCKET and its three arguments. */
	__asm__ volatile("int $0x80" : "+a"(result) : "b"(1L), "c"((long)arguments) : "memory");
	printf("lives: %d\n", result);
	return 0;
}
