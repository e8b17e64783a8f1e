/*
 * probe.c - make system calls as told, and say what the kernel answered.
 *
 *   probe NUMBER[,ARGUMENT]... [NUMBER[,ARGUMENT]...]...
 *
 * An argument is an integer of C (64 bits, may be negative), "=TEXT" for the address of that text, or
 * "@BYTES" for the address of that many zeros. Prints one line for each call: its result, and errno or 0.
 * Calls are made one after the other, by one process, which prints before it goes on.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long parse(char *text)
{
	if (*text == '=')
		return (long)(text + 1);
	if (*text == '@')
		return (long)calloc(1, strtoul(text + 1, NULL, 0));
	if (*text == '-')
		return strtol(text, NULL, 0);
	return (long)strtoul(text, NULL, 0);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	for (int i = 1; i < argc; i++) {
		long values[7] = { 0 }, result;
		int count = 0;

		for (char *part = strtok(argv[i], ","); part && count < 7; part = strtok(NULL, ","))
			values[count++] = parse(part);
		errno = 0;
		result = syscall(values[0], values[1], values[2], values[3], values[4], values[5], values[6]);
		printf("%ld %d\n", result, result == -1 ? errno : 0);
	}
	return 0;
}
