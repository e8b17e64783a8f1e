"""Doctor's checks on hosts that are not here: what each says is missing, why, and what to do about it.

Every host here is a description that was made up, for what cannot be produced where tests run, such as an
old kernel or AppArmor's restriction, and for each choice of words. What can be produced is: in tests/host, in
containers made by hand too, and in tests/vm.
"""

import errno
import signal

import msgspec
import pytest

from jail.doctor import Check, Gap, Host, Trial, examine, is_ready
from jail.doctor.description import Tool
from jail.doctor.stages import explain
from jail.outcome import Failure
from jail.supervisor import _STAGES

INSIDE = ("enter", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time", "mount", "overlay", "proc")
NOT_STARTED = Trial(refused=("The engine's own cause.", "The engine's own cure."))

# A stock Debian 12 with its own user and a delegated range: everything is as it should be.
DEBIAN = Host(
    user="jail",
    kernel="6.1.0-37-amd64",
    namespace_maxima=dict.fromkeys(("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"), 31_000),
    probes=dict.fromkeys(INSIDE, 0),
    subuids=(100_000, 65_536),
    subgids=(100_000, 65_536),
    tools={name: Tool(f"/usr/bin/{name}", True) for name in ("newuidmap", "newgidmap")},
    user_manager=True,
    cgroup_version="v2",
    seccomp_actions=("kill_process", "kill_thread", "trap", "errno", "user_notif", "trace", "log", "allow"),
    landlock_abi=2,
    rlimits={"NOFILE": 524_288, "STACK": -1, "CORE": -1},
    libseccomp="2.5.4",
    policies={"default": 555},
    process_bounds={"RLIMIT_NPROC": 15_000},
    memory_bytes=3 << 30,
    allowed_bytes=4 << 30,
    inotify=(64, 50_000),
    slots=2,
    sandboxes=68,
    pids=64,
    state="/home/jail/.local/state/jail",
    trial=Trial(setup_ms=2.0, run_ms=1.0),
)


def host(**changes) -> Host:
    return msgspec.structs.replace(DEBIAN, **changes)


def look(found: Host) -> dict[str, Check]:
    return {check.name: check for check in examine(found)}


def statuses(found: Host, status: str) -> list[str]:
    return [check.name for check in examine(found) if check.status == status]


def test_a_stock_debian_has_everything():
    assert statuses(DEBIAN, "ok") == [check.name for check in examine(DEBIAN)]


def test_what_is_ok_needs_no_cause_and_what_is_not_has_cause_and_cure():
    weak = host(landlock_abi=0, weaknesses={"landlock": Gap("None.", "Boot it.")}, kernel="5.15.0")
    for check in examine(weak):
        assert (check.cause is None) == (check.cure is None) == (check.status == "ok")


@pytest.mark.parametrize("kernel", ["5.15.0-91-generic", "6.0.19", "4.18.0-553.el8_10.x86_64"])
def test_a_kernel_below_the_floor_is_missing(kernel):
    assert statuses(host(kernel=kernel), "missing") == ["kernel"]


@pytest.mark.parametrize("kernel", ["6.1", "6.1.0-37-amd64", "6.18.44-fc-v669", "7.0-rc1", "10.0.1+"])
def test_a_kernel_from_the_floor_on_is_ok(kernel):
    assert statuses(host(kernel=kernel), "missing") == []


@pytest.mark.parametrize(
    ("changes", "cause", "cure"),
    [
        ({"namespace_maxima": {"user": 0}}, "user.max_user_namespaces is 0", "sysctl"),
        ({"namespace_maxima": {}}, "CONFIG_USER_NS", "Boot"),
        ({"mapped_ids": ()}, "id of this process is not mapped", "unshare --map-current-user"),
        ({"user_namespace_error": errno.EROFS}, "/proc/sys is mounted read-only", "umount"),
        ({"label": "docker-default (enforce)"}, "docker-default (enforce) forbids it", "allow it"),
        ({"unprivileged_userns_clone": False}, "unprivileged_userns_clone is 0", "sysctl"),
        ({"apparmor_restricts": True}, "AppArmor", "profile"),
        ({"filtered": True, "place": "docker"}, "seccomp filter", "--security-opt seccomp="),
        ({"filtered": True, "place": "unit"}, "seccomp filter", "RestrictNamespaces="),
        ({}, "EPERM", "chroot"),
        ({"user_namespace_error": -signal.SIGSYS, "filtered": True}, "seccomp filter", "without that filter"),
        ({"user_namespace_error": errno.ENOSPC}, "No more namespaces can be made", "sysctl"),
    ],
)
def test_user_namespaces_that_cannot_be_made_name_what_forbids_them(changes, cause, cure):
    refused = host(**{"user_namespace_error": errno.EPERM, "probes": {}, "trial": NOT_STARTED} | changes)
    check = look(refused)["user namespaces"]
    assert check.status == "missing"
    assert cause in check.cause
    assert cure in check.cure


def test_what_rests_on_user_namespaces_is_not_blamed_as_well():
    ubuntu = host(
        user_namespace_error=errno.EACCES,
        apparmor_restricts=True,
        probes={},
        ids=Gap("AppArmor forbids", "Load a profile"),
        trial=NOT_STARTED,
    )
    assert statuses(ubuntu, "missing") == ["user namespaces", "sandbox"]


def test_ubuntu_that_makes_namespaces_but_gives_them_no_power_is_explained_by_apparmor():
    ubuntu = host(apparmor_restricts=True, probes={"enter": 0, "mnt": errno.EPERM})
    assert "AppArmor" in look(ubuntu)["namespaces"].cause


def test_the_sysctl_of_apparmor_alone_is_no_gap_where_namespaces_work():
    assert statuses(host(apparmor_restricts=True), "missing") == []


def test_a_limit_on_one_kind_of_namespace_is_named():
    check = look(host(probes=DEBIAN.probes | {"net": errno.ENOSPC}))["namespaces"]
    assert check.status == "missing"
    assert "user.max_net_namespaces=" in check.cure


def test_no_time_namespace_is_no_more_than_a_note():
    found = host(probes=DEBIAN.probes | {"time": errno.EINVAL})
    assert statuses(found, "note") == ["time namespace"]
    assert is_ready(examine(found))


def test_a_container_with_a_masked_proc_is_told_how_to_unmask_it():
    docker = host(
        place="docker",
        filtered=True,
        probes=DEBIAN.probes | {"proc": errno.EPERM},
        proc_covered=("/proc/kcore", "/proc/keys"),
        trial=Trial(failure=Failure("proc", errno.EPERM, 0)),
    )
    found = look(docker)
    assert statuses(docker, "missing") == ["proc", "sandbox"]
    assert "/proc/kcore, /proc/keys" in found["proc"].cause
    assert "systempaths=unconfined" in found["proc"].cure
    assert found["sandbox"].cause == found["proc"].cause


def test_an_overlay_that_cannot_be_mounted_is_missing():
    old = host(probes=DEBIAN.probes | {"overlay": errno.EPERM})
    assert "overlay cannot be mounted in a user namespace" in look(old)["overlay"].cause


NO_RANGE = Gap("/etc/subuid delegates no ids to jail.", "As root: usermod --add-subuids …")


def test_without_subordinate_ids_the_command_that_delegates_them_is_told():
    check = look(host(subuids=None, subgids=None, ids=NO_RANGE))["subordinate ids"]
    assert (check.status, check.found, check.cause) == ("missing", "no range", NO_RANGE.cause)
    assert check.cure == "As root: usermod --add-subuids 200000-265535 --add-subgids 200000-265535 jail"


def test_ids_within_a_container_are_delegated_of_those_that_it_has():
    pod = host(place="kubernetes", mapped_ids=((0, 65_536),), subuids=None, subgids=None, ids=NO_RANGE)
    assert "echo jail:16384:49152 | tee /etc/subuid" in look(pod)["subordinate ids"].cure


def test_a_range_that_this_user_namespace_does_not_have_is_named():
    gap = Gap("newuidmap refused: write to uid_map failed: Operation not permitted", "Check that …")
    check = look(host(mapped_ids=((0, 65_536),), ids=gap))["subordinate ids"]
    assert "100000 to 165535 are not all in this user namespace" in check.cause


def test_a_range_too_short_for_the_settings_is_missing():
    check = look(host(subuids=(100_000, 200)))["subordinate ids"]
    assert check.status == "missing"
    assert "68 sandboxes, 2 x slots + ready_max, take 256" in check.cause


@pytest.mark.parametrize("lacks", [("CAP_SETUID",), ("CAP_SETGID", "CAP_SETUID")])
def test_a_bounding_set_without_what_newuidmap_needs_is_named(lacks):
    gap = Gap("newuidmap refused: write to uid_map failed: Operation not permitted", "Check that …")
    check = look(host(place="docker", not_bounding=lacks, ids=gap))["subordinate ids"]
    assert " and ".join(lacks) in check.cause
    assert "--cap-add SETUID" in check.cure


@pytest.mark.parametrize(("set_uid", "status"), [(True, "missing"), (False, "ok")])
def test_what_maps_ids_needs_more_when_it_is_set_uid(set_uid, status):
    tools = {name: Tool(f"/usr/bin/{name}", True, set_uid) for name in ("newuidmap", "newgidmap")}
    gap = Gap("newuidmap refused: open of uid_map failed", "Check that …") if set_uid else None
    check = look(host(not_bounding=("CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"), tools=tools, ids=gap))[
        "subordinate ids"
    ]
    assert check.status == status
    assert ("setcap" in (check.cure or "")) == set_uid


def test_calls_that_a_filter_refuses_are_named_and_blamed_for_the_sandbox():
    found = host(
        filtered=True,
        place="podman",
        refused={"pivot_root": errno.EPERM, "keyctl": -signal.SIGSYS},
        trial=Trial(failure=Failure("supervisor", errno.EPERM, 0)),
    )
    check = look(found)["system calls"]
    assert check.found == "pivot_root EPERM: Operation not permitted, keyctl killed by SIGSYS"
    assert "seccomp=deploy/container/seccomp.json" in check.cure
    assert look(found)["sandbox"].cause == check.cause


@pytest.mark.parametrize("stage", ["root", "proc", "dev"])
def test_a_profile_of_apparmor_or_selinux_is_named(stage):
    label = "system_u:system_r:container_t:s0:c1,c2"
    cause, cure = explain(stage, errno.EACCES, host(label=label, place="podman"))
    assert label in cause
    assert "label=disable" in cure


def test_what_is_mounted_on_a_part_of_usr_is_named():
    gap = Gap("No overlay, others are mounted: /usr/lib/x86_64-linux-gnu/libcuda.so.", "Unmount them.")
    check = look(host(probes=DEBIAN.probes | {"overlay": errno.EINVAL}, usr_gap=gap))["overlay"]
    assert (check.cause, check.cure) == (gap.cause, gap.cure)


@pytest.mark.parametrize(
    ("place", "cure"),
    [
        ("docker", "writable-cgroups=true"),
        ("podman", "unmask=/sys/fs/cgroup"),
        ("kubernetes", "deploy/kubernetes"),
        ("unit", "Delegate=yes"),
    ],
)
def test_a_cgroup_that_is_not_delegated_has_its_cure_in_the_words_of_the_place(place, cure):
    gap = Gap("cgroup v2: not delegated.", "Start it in a unit with Delegate=yes.")
    found = host(place=place, cgroup_version=None, cgroup_gap=gap, controllers=("cpu", "memory", "pids"))
    assert cure in look(found)["cgroup"].cure


def test_a_controller_that_the_kernel_does_not_offer_is_named():
    gap = Gap("cgroup v2: the controllers memory are not delegated to /.", "systemctl edit user@.service")
    found = host(cgroup_version=None, cgroup_gap=gap, controllers=("cpu", "io", "pids"))
    check = look(found)["cgroup"]
    assert check.cause == "The kernel offers no cgroup controller memory."
    assert "cgroup_enable=memory" in check.cure


def test_few_processes_for_all_sandboxes_are_a_note_with_what_bounds_them():
    bounds = {"RLIMIT_NPROC": 15_000, "pids.max": 100}
    check = look(host(place="docker", process_bounds=bounds))["processes"]
    assert (check.status, check.found) == ("note", "pids.max 100")
    assert "--pids-limit" in check.cure


def test_a_process_that_cannot_be_started_is_missing():
    found = host(process_error=errno.EAGAIN, process_bounds={"RLIMIT_NPROC": 4}, probes={})
    assert "RLIMIT_NPROC 4" in look(found)["processes"].cause


@pytest.mark.parametrize("name", ["user namespaces", "system calls", "subordinate ids"])
def test_what_needs_a_process_is_not_called_fine_when_none_can_be_started(name):
    found = host(process_error=errno.EAGAIN, process_bounds={"RLIMIT_NPROC": 4}, probes={})
    check = look(found)[name]
    assert (check.status, check.found) == ("note", "not tried, for want of the above")


@pytest.mark.parametrize("error", [errno.EINVAL, -signal.SIGSYS])
def test_calls_are_not_called_fine_when_the_namespace_they_are_tried_in_cannot_be_entered(error):
    assert look(host(probes={"enter": error}))["system calls"].status == "note"


def test_more_memory_for_jobs_than_the_service_may_have_is_a_note():
    check = look(host(memory_bytes=8 << 30, allowed_bytes=2 << 30))["memory"]
    assert (check.status, check.found) == ("note", "8.0 GiB of 2.0 GiB")


def test_few_inotify_instances_are_a_note():
    check = look(host(slots=16))["inotify"]
    assert check.status == "note"
    assert "fs.inotify.max_user_instances=1024" in check.cure


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSPC])
def test_a_time_namespace_that_the_kernel_has_and_refuses_is_missing(error):
    assert statuses(host(probes=DEBIAN.probes | {"time": error}), "missing") == ["time namespace"]


def test_blkio_of_v1_that_does_not_count_is_not_told_of_a_unit():
    check = look(host(cgroup_version="v1", cgroup_uncounted=("blkio",)))["cgroup"]
    assert check.status == "note"
    assert "Delegate=" not in check.cure


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"tools": {"newuidmap": Tool("/usr/bin/newuidmap", False)}}, "neither set-uid root"),
        ({"no_new_privs": True}, "no_new_privs"),
        ({}, "newuidmap refused"),
        ({"tools": {"newuidmap": None}}, "newuidmap refused"),
    ],
)
def test_ids_that_do_not_map_name_what_is_wrong_with_the_tools(changes, cause):
    gap = Gap("newuidmap refused: write to uid_map failed", "Check that …")
    assert cause in look(host(ids=gap, **changes))["subordinate ids"].cause


def test_cgroups_that_are_not_delegated_are_missing():
    gap = Gap("cgroup v1: this user has no writable …", "Start `jail serve --user NAME` as root.")
    check = look(host(cgroup_version=None, cgroup_gap=gap, user_manager=None))["cgroup"]
    assert (check.status, check.cause, check.cure) == ("missing", gap.cause, gap.cure)


def test_a_systemd_host_without_a_session_manager_is_told_of_lingering():
    gap = Gap("cgroup v2: not delegated.", "Start it in a unit with Delegate=yes.")
    check = look(host(cgroup_version=None, cgroup_gap=gap, user_manager=False))["cgroup"]
    assert "loginctl enable-linger jail" in check.cure


def test_io_that_is_not_delegated_is_a_note():
    check = look(host(cgroup_uncounted=("io",)))["cgroup"]
    assert check.status == "note"
    assert "io_read_bytes" in check.cause


@pytest.mark.parametrize("name", ["landlock", "swap"])
def test_a_weakness_is_missing_until_it_is_accepted_by_name(name):
    weak = host(weaknesses={name: Gap("It is weak.", "Strengthen it.")})
    refused, accepted = look(weak)[name], look(msgspec.structs.replace(weak, accepted=(name,)))[name]
    assert refused.status == "missing"
    assert f'allow_degraded = ["{name}"]' in refused.cure
    assert accepted.status == "degraded"
    assert "allow_degraded" not in accepted.cure


def test_accepting_a_weakness_makes_the_host_ready():
    weak = host(weaknesses={"swap": Gap("It is weak.", "Strengthen it.")}, accepted=("swap",))
    assert is_ready(examine(weak))


def test_landlock_of_an_old_kernel_says_what_it_lacks():
    assert look(host(landlock_abi=2))["landlock"].found.startswith("ABI 2, without truncation")
    assert look(host(landlock_abi=7))["landlock"].found == "ABI 7"


def test_a_seccomp_action_that_the_kernel_lacks_is_missing():
    check = look(host(seccomp_actions=("kill_thread", "trap", "errno", "trace", "allow")))["seccomp"]
    assert check.status == "missing"
    assert "kill_process, user_notif" in check.cause


def test_limits_below_the_ceilings_are_missing():
    gap = Gap("The hard RLIMIT_NOFILE of this process is 1024.", "Raise it.")
    assert statuses(host(rlimits_gap=gap, trial=NOT_STARTED), "missing") == ["hard rlimits", "sandbox"]


def test_hardware_is_never_more_than_a_note():
    for found in (host(vulnerable=("mds",), smt=True), host(smt=True)):
        assert statuses(found, "note") == ["hardware"]
        assert is_ready(examine(found))


def test_an_engine_that_did_not_start_speaks_for_itself_when_nothing_else_does():
    check = look(host(trial=NOT_STARTED))["sandbox"]
    assert (check.cause, check.cure) == NOT_STARTED.refused


def test_an_engine_that_did_not_start_points_to_what_is_missing():
    check = look(host(trial=NOT_STARTED, kernel="5.10.0"))["sandbox"]
    assert "missing above" in check.cause


@pytest.mark.parametrize(
    ("stage", "error", "cause"),
    [
        ("clone", errno.ENOSYS, "clone3 is hidden"),
        ("clone", errno.ENOSPC, "No more namespaces can be made"),
        ("clone", errno.EAGAIN, "limit on processes is reached: RLIMIT_NPROC 15000"),
        ("namespaces", errno.ENOSPC, "No more namespaces can be made: user.max_mnt_namespaces"),
        ("supervisor", errno.ENOSPC, "No more namespaces can be made"),
        ("session", errno.EPERM, "keyctl, EPERM"),
        ("session", errno.EDQUOT, "no more session keyrings"),
        ("network", errno.EAFNOSUPPORT, "loopback interface"),
        ("clone", errno.EBUSY, "cannot be born in its cgroup"),
        ("clone", errno.EPERM, "namespaces cannot be made"),
        ("cgroup", errno.EACCES, "cannot move into its cgroup"),
        ("root", errno.ENODEV, "no overlay"),
        ("root", errno.EINVAL, "what lies here"),
        ("root", errno.EPERM, "in a user namespace"),
        ("landlock", errno.EOPNOTSUPP, "Landlock refuses"),
        ("seccomp", errno.EINVAL, "does not take the filter"),
        ("exec", errno.ENOENT, "cannot be started"),
        ("supervisor", 0, "jail-supervisor ended"),
    ],
)
def test_a_sandbox_that_fails_at_a_stage_names_the_hosts_part_in_it(stage, error, cause):
    check = look(host(trial=Trial(failure=Failure(stage, error, 0))))["sandbox"]
    assert check.status == "missing"
    assert cause in check.cause


def test_a_failure_without_an_errno_is_no_success():
    assert look(host(trial=Trial(failure=Failure("supervisor", 0, 0))))["sandbox"].found == "stage supervisor"


@pytest.mark.parametrize("stage", sorted(_STAGES.values()))
def test_every_stage_has_an_explanation(stage):
    cause, cure = explain(stage, errno.EPERM, DEBIAN)
    assert cause
    assert cure


def test_the_check_serializes_under_the_names_that_scripts_read():
    check = msgspec.to_builtins(look(DEBIAN)["kernel"])
    assert list(check) == ["name", "status", "required", "found", "cause", "cure"]


def test_a_host_needs_no_way_out_whose_operator_lets_no_job_out():
    lacking = host(egress_gap=Gap("No slirp4netns.", "Install it."))
    assert look(lacking)["egress"].status == "ok"
    assert look(lacking)["egress"].found == "switched off"


@pytest.mark.parametrize(
    ("changes", "cause", "cure"),
    [
        ({"egress_gap": Gap("No slirp4netns.", "Install it.")}, "No slirp4netns.", "Install it."),
        (
            {"trial": Trial(egress="nft: Error: Could not process rule")},
            "A job with a way out cannot be run: nft: Error: Could not process rule.",
            "nf_tables",
        ),
    ],
)
def test_what_a_way_out_lacks_is_named_where_there_is_to_be_one(changes, cause, cure):
    check = look(host(egress=True, **changes))["egress"]
    assert check.status == "missing"
    assert check.cause == cause
    assert cure in check.cure


def test_a_way_out_that_is_there_is_told():
    assert look(host(egress=True))["egress"].found == "there is one"


def test_an_operator_who_wants_no_network_needs_nothing_for_it():
    check = look(host(networks="off", networks_gap=Gap("No nft.", "Install it.")))["networks"]
    assert (check.status, check.found) == ("ok", "switched off")


@pytest.mark.parametrize(("networks", "status"), [("offered", "note"), ("wanted", "missing")])
def test_what_networks_lack_is_named(networks, status):
    check = look(host(networks=networks, networks_gap=Gap("No nft.", "Install it.")))["networks"]
    assert (check.status, check.cause, check.cure) == (status, "No nft.", "Install it.")


def test_networks_that_fail_are_missing_although_they_are_only_offered():
    check = look(host(trial=Trial(networks="nft: Error")))["networks"]
    assert (check.status, check.found) == ("missing", "fails")
    assert "nft: Error" in check.cause
    assert "networks = " in check.cure


def test_networks_that_were_tried_are_told():
    assert look(host())["networks"].found == "made and taken apart"
