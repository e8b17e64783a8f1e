/* hub.h */
#ifndef JAIL_HUB_H
#define JAIL_HUB_H

#include <sys/types.h>

#include "protocol.h"

/* What the hub is: its program and arguments, ended by NULL, which point into the text. */
struct command {
	char text[COMMAND_BYTES_MAX];
	char *arguments[COMMAND_ARGUMENTS_MAX + 1];
};

/*
 * Read the text's `length` bytes, strings each ended by a NUL, the first an absolute path. Returns 0, or EPROTO
 * if they are something else.
 */
int command_read(struct command *command, size_t length);

/*
 * Become the hub, with `socket` as its socket to the service, in the user namespace that `namespace` is a
 * descriptor of, for as long as `keeper`, the parent, lives. Returns an errno value, if at all.
 */
int become_hub(pid_t keeper, int socket, int namespace, const struct command *command);

#endif
