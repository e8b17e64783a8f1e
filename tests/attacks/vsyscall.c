/* Attack 57: time() at its fixed address. Says what came back; dies of SIGSEGV where no such page is. */
#include <stdio.h>
#include <time.h>

int main(void)
{
	time_t (*ask)(time_t *) = (time_t (*)(time_t *))0xffffffffff600400;

	setvbuf(stdout, NULL, _IONBF, 0);
	printf("%ld\n", (long)ask(NULL));
	return 0;
}
