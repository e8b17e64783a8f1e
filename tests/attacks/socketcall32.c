/* Attack 42: a whole program of i386. socketcall(SYS_SOCKET, {AF_VSOCK, SOCK_STREAM, 0}), then exit(0). */
void _start(void)
{
	static int arguments[] = { 40, 1, 0 };
	int result;

	__asm__ volatile("int $0x80" : "=a"(result) : "a"(102), "b"(1), "c"(arguments) : "memory");
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(1), "b"(0));
	__builtin_unreachable();
}
