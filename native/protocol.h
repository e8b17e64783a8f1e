/* protocol.h - message.h for C, how messages are sent and received, and how two peers die together. */
#ifndef JAIL_PROTOCOL_H
#define JAIL_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

#include "message.h"

/*
 * Send one packet with `count` descriptors. Returns 0 or an errno value; EAGAIN when the
 * socket does not block and its buffer is full.
 */
int message_send(int socket, const void *bytes, size_t length, const int *fds, size_t count);

/*
 * Receive one packet into `bytes`, at most `capacity`. Received descriptors are close-on-exec;
 * they are the caller's to close. Returns 0 or an errno value: EPIPE at the end of the stream,
 * EMSGSIZE for a packet or a set of descriptors that did not fit (its descriptors are closed).
 */
int message_receive(int socket, void *bytes, size_t capacity, size_t *length, int *fds,
		    size_t *count);

/*
 * Be killed when the parent dies, whose end of `socket` tells if it was gone before. Returns 0 or an
 * errno value, then ECANCELED.
 */
int die_with_peer(int socket);

#endif
