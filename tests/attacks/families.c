/* Attack 48: every family, type and protocol. Prints what opened, then every errno of what did not. */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
	char errors[256] = { 0 };

	for (int family = 0; family <= 50; family++) {
		for (int type = 0; type <= 10; type++) {
			for (int protocol = 0; protocol < 264; protocol++) {
				int fd = socket(family, type, protocol);

				if (fd >= 0)
					printf("%d %d %d\n", family, type, protocol);
				else
					errors[errno] = 1;
				close(fd);
			}
		}
	}
	for (int error = 1; error < 256; error++)
		if (errors[error])
			printf("errno %d\n", error);
	return 0;
}
