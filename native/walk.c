/* walk.c - every entry of a tree of directories that nobody changes meanwhile, without following a link. */
#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "protocol.h"

enum { ENTRIES_BYTES = 4096 };

/* A directory that is being read. */
struct level {
	int fd;
	long at, end;
	_Alignas(struct dirent64) char entries[ENTRIES_BYTES];
};

static int enter_directory(struct level *level, int parent, const char *name)
{
	level->fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	level->at = level->end = 0;
	return level->fd < 0 ? errno : 0;
}

/* The next entry, or NULL: there are no more, or `error` says why not. */
static const char *next_name(struct level *level, int *error)
{
	const struct dirent64 *entry;

	if (level->at == level->end) {
		level->end = syscall(SYS_getdents64, level->fd, level->entries, ENTRIES_BYTES);
		level->at = 0;
		if (level->end < 0)
			*error = errno;
		if (level->end <= 0)
			return NULL;
	}
	entry = (const struct dirent64 *)(level->entries + level->at);
	level->at += entry->d_reclen;
	return entry->d_name;
}

int walk(int root, visit_function *visit, leave_function *leave, void *context)
{
	static struct level levels[DEPTH_MAX];
	int depth = 0, error = enter_directory(levels, root, ".");

	while (!error) {
		struct level *level = &levels[depth];
		const char *name = next_name(level, &error);
		struct stat about;
		int enter;

		if (error || (!name && !depth))
			break;
		if (!name) {
			close(level->fd);
			error = leave ? leave(context, depth) : 0;
			depth--;
			continue;
		}
		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		if (fstatat(level->fd, name, &about, AT_SYMLINK_NOFOLLOW))
			return errno;
		enter = S_ISDIR(about.st_mode);
		error = visit(context, depth, level->fd, name, &about, &enter);
		if (error || !enter)
			continue;
		if (depth + 1 == DEPTH_MAX)
			return ELOOP;
		error = enter_directory(level + 1, level->fd, name);
		depth++;
	}
	return error;
}
