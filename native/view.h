/* view.h - what the supervisor sees of the host. */
#ifndef JAIL_VIEW_H
#define JAIL_VIEW_H

/*
 * Leave the host's mounts behind, in a mount namespace of our own: see view.c. `place` is an empty directory,
 * relative to the working directory, which is moved along; `directories`, ended by NULL, are absolute paths
 * that are to be found again. Returns 0 or an errno value; then what is seen is undefined.
 */
int narrow_view(const char *place, char *const *directories);

/*
 * Make the working directory the root, leave all that lay above behind for good, and be in "/". Returns 0 or
 * an errno value.
 */
int leave_old_root(void);

#endif
