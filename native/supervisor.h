/* supervisor.h */
#ifndef JAIL_SUPERVISOR_H
#define JAIL_SUPERVISOR_H

#include <sys/types.h>

/* Where the socket to the service is kept. 0, 1 and 2 stay taken: no sandbox's descriptor lands there. */
enum { SERVICE = 3 };

/*
 * Serve the service, whose socket is stdin, in the user namespace that is stdout, until it closes its
 * end, and for as long as `keeper`, the parent, lives. `view`, ended by NULL, is a place to mount on and
 * the directories of the host that images are made of. Returns 0, or an errno value: then set-up failed
 * or the service broke the protocol. No sandbox lives on after the return.
 */
int supervise(pid_t keeper, char *const *view);

#endif
