"""How many arguments each system call has: what stands in the other registers is not told of a denial."""

from jail.policy.numbers import call_name


def count(nr: int) -> int:
    """Count the arguments of call `nr`, 0 to 6; 0 for calls that no kernel has had for long."""
    name = call_name(nr)
    return next((count for count, names in _CALLS.items() if name in names), 0)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# include/linux/syscalls.h of Linux 6.18. Calls without arguments, and those long gone, are left out.
_CALLS = {
    1: _words(
        "acct adjtimex alarm brk chdir chroot close dup epoll_create epoll_create1 eventfd exit exit_group "
        "fchdir fdatasync fsync getpgid getsid inotify_init1 io_destroy iopl mlockall mq_unlink personality "
        "pipe pkey_free rmdir sched_get_priority_max sched_get_priority_min sched_getscheduler "
        "set_tid_address setfsgid setfsuid setgid setuid shmdt swapoff syncfs sysinfo time timer_delete "
        "timer_getoverrun times umask uname unlink unshare userfaultfd"
    ),
    2: _words(
        "access arch_prctl capget capset chmod clock_adjtime clock_getres clock_gettime clock_settime clone3 "
        "creat delete_module dup2 eventfd2 fanotify_init fchmod flock fstat fstatfs fsopen ftruncate getcwd "
        "getgroups getitimer getpriority getrlimit getrusage gettimeofday inotify_rm_watch io_setup "
        "io_uring_setup ioprio_get kill landlock_restrict_self link listen lstat memfd_create memfd_secret "
        "mkdir mlock mq_notify munlock munmap nanosleep pidfd_open pipe2 pivot_root pkey_alloc "
        "process_mrelease removexattr lremovexattr fremovexattr rename rt_sigpending rt_sigsuspend "
        "sched_getparam sched_rr_get_interval sched_setparam set_robust_list setdomainname setgroups "
        "sethostname setns setpgid setregid setreuid setrlimit settimeofday shutdown sigaltstack stat statfs "
        "swapon symlink timer_gettime timerfd_create timerfd_gettime tkill truncate umount2 ustat utime "
        "utimes"
    ),
    3: _words(
        "accept bind bpf chown close_range connect dup3 execve faccessat fchmodat fchown fcntl "
        "finit_module flistxattr fsmount fspick futimesat get_robust_list getcpu getdents getdents64 "
        "getpeername getrandom getresgid getresuid getsockname init_module inotify_add_watch io_cancel "
        "io_submit ioctl ioperm ioprio_set landlock_create_ruleset lchown listxattr llistxattr "
        "lookup_dcookie lseek lsm_list_modules madvise map_shadow_stack membarrier mincore mkdirat mknod "
        "mlock2 modify_ldt mprotect mq_getsetattr mseal msgctl msync open open_by_handle_at open_tree "
        "pidfd_getfd poll read readahead readlink readv recvmsg rt_sigqueueinfo sched_getaffinity "
        "sched_setaffinity sched_setattr sched_setscheduler seccomp semget semop sendmsg set_mempolicy "
        "setitimer setpriority setresgid setresuid shmat shmctl shmget signalfd socket symlinkat syslog "
        "sysfs tgkill timer_create unlinkat write writev"
    ),
    4: _words(
        "accept4 cachestat clock_nanosleep epoll_ctl epoll_wait faccessat2 fadvise64 fallocate fchmodat2 "
        "fgetxattr futex_requeue futex_wake getxattr io_uring_register kexec_load landlock_add_rule "
        "lgetxattr listmount lsm_get_self_attr lsm_set_self_attr migrate_pages mknodat mq_open msgsnd "
        "newfstatat openat openat2 pidfd_send_signal pkey_mprotect pread64 prlimit64 ptrace pwrite64 "
        "quotactl quotactl_fd readlinkat reboot removexattrat renameat request_key rseq rt_sigaction "
        "rt_sigprocmask rt_sigtimedwait rt_tgsigqueueinfo sched_getattr semctl semtimedop sendfile sendmmsg "
        "set_mempolicy_home_node signalfd4 socketpair statmount sync_file_range tee timer_settime "
        "timerfd_settime utimensat vmsplice wait4"
    ),
    5: _words(
        "add_key clone execveat fanotify_mark fchownat file_getattr file_setattr fsconfig fsetxattr "
        "futex_waitv get_mempolicy getsockopt io_getevents kcmp kexec_file_load keyctl linkat listxattrat "
        "lsetxattr mount mount_setattr move_mount mq_timedreceive mq_timedsend mremap msgrcv "
        "name_to_handle_at open_tree_attr perf_event_open ppoll prctl preadv process_madvise pwritev "
        "recvmmsg remap_file_pages renameat2 select setsockopt setxattr statx waitid"
    ),
    6: _words(
        "copy_file_range epoll_pwait epoll_pwait2 futex futex_wait getxattrat io_pgetevents io_uring_enter "
        "mbind mmap move_pages preadv2 process_vm_readv process_vm_writev pselect6 pwritev2 recvfrom sendto "
        "setxattrat splice"
    ),
}
