/* walk.h - every entry of a tree of directories that nobody changes meanwhile, without following a link. */
#ifndef JAIL_WALK_H
#define JAIL_WALK_H

#include <sys/stat.h>

/*
 * Called with the directory `directory`, `depth` levels beneath the root of the walk, the name of an entry and what
 * fstatat(2) says of it. A directory is gone into if `*enter` is set, which it is before; `leave` is called
 * afterwards with its depth. Both return 0, or an errno value, which ends the walk.
 */
typedef int visit_function(void *context, int depth, int directory, const char *name, const struct stat *about,
			   int *enter);
typedef int leave_function(void *context, int depth);

/* Returns 0 or an errno value: ELOOP, directories lie deeper than DEPTH_MAX. */
int walk(int root, visit_function *visit, leave_function *leave, void *context);

#endif
