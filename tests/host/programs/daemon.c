/* Leave a daemon behind, the classical way, that keeps stdout open and never ends. */
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
	if (fork())
		return 0;
	setsid();
	if (fork())
		_exit(0);
	(void)!write(1, "daemon\n", 7);
	for (;;)
		pause();
}
