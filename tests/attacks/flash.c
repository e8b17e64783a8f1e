/* flash WAY BYTES: hold so much memory for the shortest moment: map, child or file. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int flash_memory(size_t bytes)
{
	void *place = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return place == MAP_FAILED || munmap(place, bytes);
}

static int flash_file(size_t bytes)
{
	int fd = open("/tmp/flash", O_CREAT | O_RDWR, 0600);

	return fd < 0 || unlink("/tmp/flash") || posix_fallocate(fd, 0, (off_t)bytes) || close(fd);
}

/* It is not waited for: the pipe tells that it is done. */
static int flash_child(size_t bytes)
{
	int ends[2];
	char failed = 1;

	if (pipe(ends))
		return 1;
	if (!fork()) {
		failed = (char)flash_memory(bytes);
		(void)!write(ends[1], &failed, 1);
		for (;;)
			pause();
	}
	return read(ends[0], &failed, 1) != 1 || failed;
}

int main(int argc, char **argv)
{
	size_t bytes = argc == 3 ? strtoul(argv[2], NULL, 0) : 0;

	if (argc != 3)
		return 1;
	if (!strcmp(argv[1], "file"))
		return flash_file(bytes);
	return strcmp(argv[1], "child") ? flash_memory(bytes) : flash_child(bytes);
}
