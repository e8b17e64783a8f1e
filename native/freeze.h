/* freeze.h - what the supervisor does to keep /box of a sandbox that has ended, and to hand it to others. */
#ifndef JAIL_FREEZE_H
#define JAIL_FREEZE_H

#include "protocol.h"

/*
 * Detached mounts, read-only, of `count` directories, whose paths stand one after the other in `paths`. Returns 0 or
 * an errno value; then none is open.
 */
int open_places(const char *paths, uint32_t count, int *fds);

/*
 * Begin to give all that is in `box`, a detached mount, to `owner`: by a process of its own, for it can take a while.
 * Returns 0, with a pidfd of that process, or an errno value. It exits with 0 or an errno value.
 */
int begin_freeze(int box, uint32_t owner, int *pidfd);

/* Once that is done: mount `box` at `place`, read-only. Returns 0 or an errno value. */
int end_freeze(int box, const char *place);

#endif
