/* One call of another architecture: getpid() of i386, through int 0x80. */
int main(void)
{
	int result;

	__asm__ volatile("int $0x80" : "=a"(result) : "a"(20));
	return 0;
}
