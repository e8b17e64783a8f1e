/* keeper.h */
#ifndef JAIL_KEEPER_H
#define JAIL_KEEPER_H

/*
 * Start supervisors, hubs and programs of images for the service, whose socket is stdin, in the user namespace
 * that is stdout, until the service closes its end. `view` is for supervise(). Returns 0 or an errno value; in a
 * process that it forked, what supervise() or become_program() returned.
 */
int keep(char *const *view);

#endif
