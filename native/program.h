/* program.h - programs of Python that the keeper starts, each of its kind by a command that it was told once. */
#ifndef JAIL_PROGRAM_H
#define JAIL_PROGRAM_H

#include <sys/types.h>

#include "protocol.h"

/* Program and arguments, ended by NULL, which point into the text; none, if nothing of that kind is to be started. */
struct command {
	char text[COMMAND_BYTES_MAX];
	char *arguments[COMMAND_ARGUMENTS_MAX + 1];
};

/*
 * Read the text's `length` bytes, strings each ended by a NUL, the first an absolute path; or one empty string, and
 * there is no command. Returns 0, or EPROTO if they are something else.
 */
int command_read(struct command *command, size_t length);

/*
 * Become the program of that kind, with `socket` as its socket to the service, for as long as `keeper`, the parent,
 * lives. `namespace`: a descriptor of the outer user namespace, which the hub enters and the program of images has
 * as stdout. Returns an errno value, if at all.
 */
int become_program(pid_t keeper, enum kind kind, int socket, int namespace, const struct command *command);

#endif
