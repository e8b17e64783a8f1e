"""Where jail runs, as engines and systemd leave traces of it; and every cure has words for every place."""

from typing import get_args

import pytest

from jail.doctor.place import Need, Place, cure, find_place

DOCKER = (
    "3030 3001 254:1 /var/lib/docker/containers/"
    + "0123456789abcdef" * 4
    + "/hosts /etc/hosts rw - ext4 x rw\n"
)
PODMANS = DOCKER.replace("/var/lib/docker/containers/", "/containers/overlay-containers/").replace(
    "/hosts /", "/userdata/hosts /"
)
POD = "3030 3001 254:1 /var/lib/kubelet/pods/4711/etc-hosts /etc/hosts rw - ext4 x rw\n"
HOST = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
SHELL = "0::/user.slice/user-1000.slice/session-1.scope\n"


@pytest.mark.parametrize(
    ("mountinfo", "cgroups", "files", "place"),
    [
        (HOST, SHELL, {}, "host"),
        # The leaf is where the service moves itself: jail.cgroup.v2.
        (HOST, "0::/system.slice/jail.service\n", {}, "unit"),
        (HOST, "0::/system.slice/jail.service/service\n", {}, "unit"),
        (HOST, "4:memory:/\n1:name=systemd:/system.slice/jail.service\n", {}, "unit"),
        (HOST, "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope\n", {}, "host"),
        (HOST, "0::/\n", {"run/.containerenv": ""}, "podman"),
        (HOST + PODMANS, "0::/\n", {}, "podman"),
        (HOST + DOCKER, "0::/\n", {".dockerenv": ""}, "docker"),
        # A host of engines that run containers.
        (HOST + "40 22 0:50 / /var/lib/kubelet/pods/4711/volumes/x rw - tmpfs tmpfs rw\n", SHELL, {}, "host"),
        (
            HOST
            + f"41 22 0:51 / /var/lib/containers/overlay-containers/{'0f' * 32}/userdata/shm rw - x x x\n",
            SHELL,
            {},
            "host",
        ),
        # A machine whose file system was an image once.
        (HOST, SHELL, {".dockerenv": ""}, "host"),
        (HOST + POD, "0::/\n", {}, "kubernetes"),
        (
            HOST,
            "0::/\n",
            {"etc/hosts": "# Kubernetes-managed hosts file.\n", "run/.containerenv": ""},
            "kubernetes",
        ),
        (HOST, "0::/init.scope\n", {"run/systemd/container": "systemd-nspawn"}, "container"),
    ],
)
def test_a_place_is_known_by_what_is_there(tmp_path, mountinfo, cgroups, files, place):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert find_place(mountinfo, cgroups, tmp_path) == place


@pytest.mark.parametrize("place", get_args(Place))
@pytest.mark.parametrize("need", get_args(Need))
def test_every_cure_has_words_for_every_place(need, place):
    assert cure(need, place)
