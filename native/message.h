/*
 * message.h - what crosses between the service, the supervisor and init.
 *
 * The layout is written once, here. The C compiler reads this text through
 * protocol.h, and cffi reads the very same text for Python: so it holds
 * declarations only, and no preprocessor lines.
 *
 *   service    -> keeper       enum kind
 *   keeper     -> service      struct kept
 *   service    -> supervisor   struct make, struct start, struct ask
 *   supervisor -> service      struct report
 *   supervisor -> init         struct start, forwarded as it came
 *   init       -> job          the same, with the descriptors that are the job's
 *   init, job  -> supervisor   struct news
 *
 * Every message is one packet of a SOCK_SEQPACKET pair and begins with its type and
 * its slot. A slot is one place for a sandbox, numbered by the service. Times are in
 * nanoseconds of CLOCK_MONOTONIC, sizes in bytes. Descriptors travel beside the message
 * as SCM_RIGHTS, in the order that each struct states.
 */

enum {
	SLOTS_MAX = 4096,
	MESSAGE_BYTES_MAX = 32768,
	DESCRIPTORS_MAX = 16,
	BUILT_DESCRIPTORS = 3,
	RLIMIT_COUNT = 16,
	COUNTED_MAX = 8,
	DENIALS_MAX = 64,
	CALL_ARGUMENTS = 6,
	PROCESSORS_MAX = 1024,
	OPTIONS_BYTES = 96,
	PATH_BYTES_MAX = 4096,
	HOSTS_BYTES_MAX = 65536,
	PLACES_MAX = 2,
	DEPTH_MAX = 256,
	STRETCHES_MAX = 65536,
	PLACE_BYTES_MAX = 32,
	COMMAND_BYTES_MAX = 16384,
	COMMAND_ARGUMENTS_MAX = 32,
	/* The ids that a job sees for init, for itself, and for what other sandboxes left for it. */
	INIT_ID = 0,
	JOB_ID = 1000,
	FROZEN_ID = 1001
};

/*
 * Every place where making or starting a sandbox can fail, in the order of set-up. Python
 * takes the words it shows from these names.
 */
enum stage {
	STAGE_NONE,
	STAGE_CLONE,
	STAGE_ID_MAPS,
	STAGE_DESCRIPTORS,
	STAGE_CGROUP,
	STAGE_NAMESPACES,
	STAGE_MAPS,
	STAGE_SIGNALS,
	STAGE_PARENT,
	STAGE_SESSION,
	STAGE_PRIVATE,
	STAGE_ROOT,
	STAGE_PROC,
	STAGE_DEV,
	STAGE_SCRATCH,
	STAGE_PIVOT,
	STAGE_SYSCTLS,
	STAGE_READ_ONLY,
	STAGE_NETWORK,
	STAGE_HOSTNAME,
	STAGE_BOUNDING,
	STAGE_NO_NEW_PRIVS,
	STAGE_FORK,
	STAGE_IDS,
	STAGE_CAPABILITIES,
	STAGE_LANDLOCK,
	STAGE_READY,
	STAGE_SIZES,
	STAGE_FILES,
	STAGE_LENT,
	STAGE_BOX,
	STAGE_HOSTS,
	STAGE_HANDOVER,
	STAGE_PROCESSORS,
	STAGE_STDIO,
	STAGE_CLOSE,
	STAGE_RLIMITS,
	STAGE_SPECULATION,
	STAGE_PROGRAM,
	STAGE_BASELINE,
	STAGE_SECCOMP,
	STAGE_EXEC,
	STAGE_ATTEND,
	STAGE_FREEZE,
	/* The sandbox did not get through its set-up in time. */
	STAGE_TIME
};

enum type {
	/* requests of the service */
	TYPE_MAKE = 1,
	TYPE_START,
	TYPE_KILL,
	TYPE_OPEN,
	TYPE_RELEASE,
	TYPE_FREEZE,
	/* reports of the supervisor */
	TYPE_READY,
	TYPE_ENDED,
	TYPE_OPENED,
	TYPE_GONE,
	TYPE_FROZEN,
	/* news of init and job */
	TYPE_BUILT,
	TYPE_STARTED,
	TYPE_EXITED,
	TYPE_EMPTY,
	TYPE_FAILED
};

/* Why a sandbox was ended before its main process exited: the first reason stays. */
enum cause {
	CAUSE_NONE,
	CAUSE_CPU,
	CAUSE_WALL,
	CAUSE_MEMORY,
	CAUSE_SERVICE
};

struct header {
	uint32_t type;
	uint32_t slot;
};

/*
 * Make a sandbox, up to the point where it waits for a job.
 *
 * Descriptors: `joins` tasks files of cgroup v1, or with `born` one directory of cgroup v2 and its
 * cgroup.kill; then `cpu_counters` files (three of v1: cpuacct.usage, .usage_user and .usage_sys; one
 * of v2: cpu.stat); then with `oom_event` an eventfd that counts OOM notices of cgroup v1.
 *
 * After the struct, as text, each ended by a NUL: an empty directory to mount the root on, relative
 * to the supervisor's working directory, then `overlays` pairs of a target beneath the root ("" is
 * the root itself) and the value of overlay's lowerdir= for it.
 */
struct make {
	struct header header;
	uint64_t setup_ns;
	uint32_t joins;
	uint32_t born;
	uint32_t cpu_counters;
	uint32_t oom_event;
	uint32_t time_namespace;
	uint32_t padding;
	uint32_t overlays;
	uint32_t text_bytes;
	/* Lines for uid_map and gid_map alike: INIT_ID, JOB_ID and FROZEN_ID to three ids of the outer namespace. */
	char id_map[OPTIONS_BYTES];
};

/* A call that is allowed `maximum` times and answered `error` from then on. */
struct counted {
	uint32_t call;
	uint32_t error;
	uint64_t maximum;
};

/* What a call is answered when it is denied, and how many arguments it has. */
struct answer {
	uint16_t error;
	uint16_t arguments;
};

/*
 * Start the job in a ready sandbox.
 *
 * Descriptors: stdin, stdout, stderr, the filter (an array of struct sock_filter), the plan; then with
 * `explains` an array of struct answer, by the number of the call, and room for a struct denials. The filter
 * hands to init the calls in `counted` and, with `explains`, those that it denies; `listens` says that it
 * hands over any.
 *
 * The plan holds, in this order: `arguments` strings and `variables` strings, each ended by a
 * NUL; the list of directories to search for a program without a slash, one string, separated by colons;
 * the directory to start in, one string; then `files` times a struct file, its path ended by a NUL, and its
 * bytes; then `lent_files` paths, each ended by a NUL; then `hosts_bytes`, at most HOSTS_BYTES_MAX, of text that is to be /etc/hosts, of which the image has
 * its own: none, and that stays.
 *
 * After the struct, as text, each ended by a NUL: `places` paths of directories, relative to the supervisor's working
 * directory or absolute. To init they go as descriptors, after all others, in this order. With `keeps`, a place that
 * FREEZE was given: what is there is copied to /box, but what has the name of a file of the plan. With `lends`, one
 * of files that are kept for many jobs: what is in its directory `box` under the names of the plan is seen in /box,
 * and with `lends_stdin` its file `stdin` is read in place of the descriptor.
 */
struct start {
	struct header header;
	uint64_t setup_ns;
	uint64_t cpu_ns;
	uint64_t wall_ns;
	/* How many processors the job can keep busy at once. */
	uint64_t parallelism;
	uint64_t filter_bytes;
	uint64_t plan_bytes;
	uint32_t arguments;
	uint32_t variables;
	uint32_t files;
	/* The job keeps what control it has over speculation. */
	uint32_t speculates;
	uint32_t listens;
	uint32_t explains;
	uint32_t counted_calls;
	uint32_t hosts_bytes;
	uint32_t keeps;
	uint32_t lends;
	uint32_t lends_stdin;
	/* How many of the kept files are seen in /box, and the length of the text. */
	uint32_t lent_files;
	uint32_t places_bytes;
	uint32_t padding;
	struct counted counted[COUNTED_MAX];
	/* A bit for each processor that the job may run on; none of them set: any. */
	uint64_t processors[PROCESSORS_MAX / 64];
	/* Soft and hard alike, by the numbers of RLIMIT_*. */
	uint64_t rlimits[RLIMIT_COUNT];
	/* Mount options for /box, /tmp and /dev/shm: size= and nr_inodes=. */
	char scratch_options[OPTIONS_BYTES];
};

struct file {
	uint64_t bytes;
	uint32_t mode;
	uint32_t path_bytes; /* with the NUL */
};

/*
 * Kill, open, release or freeze; a released slot is told of once more, when it is gone. A path stands after
 * the struct, ended by a NUL.
 *
 * open: beneath /box.
 * freeze: an empty directory, relative to the supervisor's working directory, of at most PLACE_BYTES_MAX. There the
 * tmpfs of /box is mounted then, read-only; all in it belongs to `owner`, an id of the outer namespace. When the
 * directory is removed so is the mount (mount_namespaces(7)). Once it is kept nothing can be opened any more.
 */
struct ask {
	struct header header;
	uint32_t path_bytes; /* with the NUL */
	uint32_t owner;
};

/*
 * What the keeper is asked to start: one byte, with the socket of what is started as descriptor. Before all
 * that it is told the command of each kind from KIND_HUB on, once, in this order: its strings, each ended by a NUL,
 * the first an absolute path, at most COMMAND_ARGUMENTS_MAX of them in COMMAND_BYTES_MAX; or one empty string, and
 * nothing of that kind is ever started.
 */
enum kind {
	KIND_SUPERVISOR = 1,
	KIND_HUB,
	KIND_IMAGES,
	KINDS
};

/*
 * What the keeper tells of what it started, once when that began and once when it has ended. `status`
 * is then its exit status, which of a supervisor is an errno, or the negative of a signal. Could it not be
 * forked, `pid` is 0 and `status` the errno.
 */
struct kept {
	int32_t pid;
	uint32_t ended;
	int32_t status;
};

/* Where set-up failed: the stage, the errno, and which of several things it was about. */
struct failure {
	uint32_t stage;
	int32_t error;
	int32_t index;
	uint32_t padding;
};

/* `total_ns` is exact; on v1 the other two are counted in ticks, and only their ratio means something. */
struct cpu_time {
	uint64_t total_ns;
	uint64_t user_ns;
	uint64_t system_ns;
};

/* A call that was denied `count` times, with these arguments as far as it has any. */
struct denial {
	uint64_t arguments[CALL_ARGUMENTS];
	uint64_t count;
	uint32_t call;
	uint32_t padding;
};

/*
 * What init tells the service of a job that is explained, in memory that both have mapped: it stays when
 * the sandbox is killed. `omitted` counts the denied calls that there was no room to list.
 */
struct denials {
	uint64_t omitted;
	uint32_t count;
	uint32_t padding;
	struct denial listed[DENIALS_MAX];
};

/* When a job passed from hand to hand, for whoever looks where its time went; 0 where it did not come. */
struct moments {
	uint64_t received_ns; /* by the supervisor */
	uint64_t taken_ns;    /* by init */
	uint64_t given_ns;    /* to the job's process, which has its program to find and its filter to load */
	uint64_t started_ns;
	uint64_t exited_ns;
	uint64_t empty_ns;    /* nothing of it lived any more */
};

/*
 * What the supervisor knows of a slot. Ready: the sandbox waits for a job, and a descriptor of its network
 * namespace comes along. Ended: nothing of the job lives, and these are the facts; told in the place of Ready, that
 * descriptor may come along. Opened: `failure.error` is 0 and one descriptor comes along, or it is the errno.
 * Frozen: the same, without a descriptor: ELOOP, directories lie deeper than DEPTH_MAX; E2BIG, there are more entries
 * and stretches of data in files than STRETCHES_MAX.
 * Gone: nothing of the sandbox lives, and the slot is free.
 */
struct report {
	struct header header;
	uint32_t cause;
	/* The main process was waited for: exit_code is -1 or signal is 0. */
	uint32_t exited;
	int32_t exit_code;
	int32_t signal;
	struct failure failure;
	/* The job's program was about to be executed: the clocks below ran from there. */
	uint32_t started;
	uint32_t padding;
	uint64_t wall_ns;
	struct cpu_time cpu;
	/* The largest of any process that was waited for. Known only if the main process was. */
	uint64_t max_rss_bytes;
	struct moments moments;
};

/*
 * What init and the job's process tell the supervisor. Built: with a descriptor of /box, the pidfd of the
 * job's process and a descriptor of the network namespace. Started: the clock and the CPU time just before the filter and execve(). Exited: the
 * main process's end. Empty: nothing lives but init. Failed: where. `since_ns` is when the teller had the
 * job: init's is told with the exit.
 */
struct news {
	struct header header;
	struct failure failure;
	uint64_t since_ns;
	uint64_t clock_ns;
	struct cpu_time cpu;
	int32_t exit_code;
	int32_t signal;
	uint64_t max_rss_bytes;
};
