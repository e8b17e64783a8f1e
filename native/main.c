/*
 * main.c - jail-supervisor, started by the service and by nobody else.
 *
 *   jail-supervisor namespace   hold a new user namespace until stdin ends; a byte on stdout says
 *                               that it is there. The service maps ids into it and keeps it open.
 *   jail-supervisor keep        start supervisors, each a fork of it: see keeper.c and supervisor.c
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "keeper.h"

static int hold_namespace(void)
{
	char byte = 'n';

	if (unshare(CLONE_NEWUSER) || write(STDOUT_FILENO, &byte, 1) != 1)
		return errno;
	return read(STDIN_FILENO, &byte, 1) < 0 ? errno : 0;
}

int main(int argc, char **argv)
{
	int error = EINVAL;

	if (argc == 2 && !strcmp(argv[1], "namespace"))
		error = hold_namespace();
	else if (argc == 2 && !strcmp(argv[1], "keep"))
		error = keep();
	if (error)
		fprintf(stderr, "jail-supervisor: %s: %s\n", argc == 2 ? argv[1] : "usage", strerror(error));
	/* The errno value is the exit status: the service words it for the operator. */
	return error;
}
