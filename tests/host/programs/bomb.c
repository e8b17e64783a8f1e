/* Fork for ever, and never mind when it is refused. */
#include <unistd.h>

int main(void)
{
	for (;;)
		fork();
}
