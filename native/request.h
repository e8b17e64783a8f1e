/* request.h - what the service may ask of the supervisor. */
#ifndef JAIL_REQUEST_H
#define JAIL_REQUEST_H

#include <stdbool.h>

#include "protocol.h"

union request {
	struct header header;
	struct make make;
	struct start start;
	struct ask ask;
	char bytes[MESSAGE_BYTES_MAX];
};

/*
 * Whether a packet of `length` bytes that came with `count` descriptors is a request as message.h
 * lays it out: its sizes agree, its texts end where they must. Past this nobody checks it again,
 * but whether it suits the state of its slot.
 */
bool request_fits(const union request *request, size_t length, size_t count);

/*
 * Whether three descriptors that came with a job are what it may have as stdin, stdout and stderr: pipes, and
 * for stdin a file. A directory would lead out of the sandbox.
 */
bool stdio_fits(const int *fds);

#endif
