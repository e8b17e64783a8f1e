/* outer.h - what a child of the keeper does to act in the outer user namespace. */
#ifndef JAIL_OUTER_H
#define JAIL_OUTER_H

#include <sys/types.h>

/*
 * Enter the user namespace that `namespace` is a descriptor of, and be root there, and of nothing else: the id is
 * still the service's, seen from the host. Returns 0 or an errno value.
 */
int enter_outer_namespace(int namespace);

/*
 * Be killed when the keeper dies, which has to be the parent; after whatever changes ids, which clears that.
 * Returns 0 or an errno value: ECANCELED if it is gone already.
 */
int die_with_keeper(pid_t keeper);

#endif
