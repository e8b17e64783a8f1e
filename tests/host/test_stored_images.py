"""Jobs in images of the store: what they see, what they cannot change, and how long an image is held."""

import io
import os
import stat
import subprocess
import sys

import pytest
import rootfs
from msgspec import structs

from jail.errors import ImageInUseError
from jail.images.archive import import_file
from jail.images.store import Store
from jail.images.unpacker import Unpacker
from jail.languages import definitions
from jail.languages.toolchains import Toolchains
from jail.namespace import OuterNamespace
from jail.spec import SpecError

BASE = {
    **rootfs.programs("sh", "cat", "ls", "id", "touch", "mkdir", "rm", "true", "stat", "flock"),
    "etc": None,
    "etc/motd": b"from the base\n",
    "srv": None,
    "srv/one": b"1\n",
    "srv/two": b"2\n",
    "var/lib/old": None,
    "var/lib/old/kept": b"hidden\n",
    "link": "srv",
}
MIDDLE = {
    "srv/.wh.one": b"",
    "srv/three": b"3\n",
    "var/lib/old/.wh..wh..opq": b"",
    "var/lib/old/new": b"seen\n",
}
TOP = {"srv/two": b"2, again\n", "usr/bin/hello": b"#!/bin/sh\necho hello from $PWD as $WHO\n"}
SETTINGS = {
    "Env": ["WHO=the image", "PATH=/usr/bin", "HOME=/root"],
    "Entrypoint": ["hello"],
    "WorkingDir": "/srv",
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A store, with images of one layer, of three and of 127."""
    directory = tmp_path_factory.mktemp("images") / "store"
    namespace = OuterNamespace()
    store = Store(directory)
    unpacker = Unpacker(namespace.descriptor, directory / "layers")
    base = rootfs.archive(BASE)
    layers = (base, rootfs.archive(MIDDLE), rootfs.archive(TOP, mode=0o755))
    many = (base, *(rootfs.archive({f"srv/{n}": b"%d\n" % n}) for n in range(126)))
    with_user = rootfs.archive({**BASE, "etc/passwd": b"root:x:0:0::/:/bin/sh\nnode:x:1000:1000::/:/bin/sh"})
    hostile = rootfs.archive(
        {**BASE, "etc/passwd": "/etc/shadow", "usr/bin/tool": b"#!/bin/sh\nid -u\n"}, mode=0o4755
    )
    for name, image in {
        "base:1": rootfs.image(base),
        "three:1": rootfs.image(*layers, **SETTINGS),
        "many:1": rootfs.image(*many),
        "user:1": rootfs.image(with_user),
        "hostile:1": rootfs.image(hostile),
        "lost:1": rootfs.image(*layers, **{**SETTINGS, "WorkingDir": "/gone"}),
    }.items():
        import_file(store, unpacker, io.BytesIO(image), name)
    store.close()
    yield directory
    store = Store(directory)
    store.prune(unpacker, nameless=True)
    for stored in store.stored():
        for name in stored.names:
            store.remove(name, unpacker)
    assert not list((directory / "layers").iterdir())
    store.close()
    unpacker.close()
    namespace.close()


@pytest.fixture
def engine(engine_with, directory):
    with engine_with(slots=2, ready_min=0, ready_max=8, images=str(directory)) as found:
        yield found


def sh(engine, script, image="base:1", **fields):
    result = engine.sh(script, image=image, **fields)
    assert result["status"] in ("ok", "nonzero_exit"), result["detail"]
    return result["stdout"]["text"] + result["stderr"]["text"]


def test_a_job_sees_its_image_and_nothing_of_the_host(engine):
    assert sh(engine, "cat /etc/motd") == "from the base\n"
    assert sh(engine, "ls /") == "bin\nbox\ndev\netc\nlib\nlib64\nlink\nproc\nsbin\nsrv\ntmp\nusr\nvar\n"
    assert engine.run({"argv": ["python3"], "image": "base:1"})["status"] == "start_failed"


def test_layers_hide_what_they_take_away_from_those_beneath(engine):
    script = "cd /srv; cat two three; ls; ls /var/lib/old"
    assert sh(engine, script, "three:1") == "2, again\n3\nthree\ntwo\nnew\n"
    assert sh(engine, script.replace(" three", ""), "base:1") == "2\none\ntwo\nkept\n"


def test_an_image_may_have_as_many_layers_as_there_can_be(engine):
    assert sh(engine, "cd /srv; cat 0 62 125", "many:1") == "0\n62\n125\n"


def test_what_the_image_says_of_itself_holds_where_the_job_says_nothing(engine):
    result = engine.run({"image": "three:1"})
    assert result["stdout"]["text"] == "hello from /srv as the image\n"
    result = engine.run({"image": "three:1", "env": {"WHO": "me"}, "argv": ["hello"]})
    assert result["stdout"]["text"] == "hello from /box as me\n"
    assert sh(engine, "echo $HOME", "three:1") == "/box\n"


def test_a_directory_to_start_in_that_the_image_lacks_is_told(engine):
    result = engine.run({"image": "lost:1"})
    assert (result["status"], result["detail"]) == (
        "start_failed",
        "ENOENT: the directory that the image names to start in",
    )


def test_whoever_runs_the_job_has_a_name(engine):
    assert sh(engine, "id") == "uid=1000(jail) gid=1000(jail) groups=1000(jail)\n"
    assert sh(engine, "id -un; cat /etc/passwd", "user:1").startswith(
        "node\nroot:x:0:0::/:/bin/sh\nnode:x:1000"
    )


def test_a_link_in_place_of_the_accounts_leads_nowhere(engine):
    """The service reads them; it follows no link of an image's."""
    assert "jail:x:1000" in sh(engine, "cat /etc/passwd", "hostile:1")


def test_a_set_id_bit_means_nothing(engine):
    assert sh(engine, "stat -c %a /usr/bin/tool; tool", "hostile:1") == "4755\n1000\n"


@pytest.mark.parametrize(
    "attempt", [": >>/etc/motd", ": >/new", "mkdir /srv/new", "rm /srv/one", "touch /srv/one"]
)
def test_nothing_of_it_can_be_changed(engine, attempt):
    assert "Read-only file system" in sh(engine, attempt)


def test_the_result_says_which_image_it_was(engine, directory):
    result = engine.run({"argv": ["true"], "image": "three:1"})
    digest = Store(directory).find("three:1").digest
    assert result["sandbox"] | {"degraded": []} == {
        "image": "three:1",
        "digest": digest,
        "policy": "default",
        "degraded": [],
    }
    assert engine.run({"argv": ["true"], "image": digest})["sandbox"]["digest"] == digest
    assert engine.run({"argv": ["true"]})["sandbox"]["digest"] is None


def test_an_image_that_is_not_there_is_refused_by_name_with_those_that_are(engine):
    with pytest.raises(
        SpecError, match="'four' is not offered here; known: host, base:1, hostile:1"
    ) as error:
        engine.run({"argv": ["true"], "image": "four"})
    assert error.value.field == "image"


def test_an_image_is_held_while_sandboxes_are_made_of_it(engine, directory):
    assert sh(engine, "cat /etc/motd") == "from the base\n"
    store = Store(directory)
    namespace = OuterNamespace()
    unpacker = Unpacker(namespace.descriptor, directory / "layers")
    with pytest.raises(ImageInUseError):
        store.remove("base:1", unpacker)
    assert sh(engine, "cat /etc/motd") == "from the base\n"
    unpacker.close()
    namespace.close()
    store.close()


def test_files_of_an_image_belong_to_nobody_in_a_sandbox(engine, directory):
    layer = Store(directory).find("base:1").layers[0]
    assert (directory / "layers" / layer / "srv/one").stat().st_uid == os.getuid()
    assert sh(engine, "stat -c %u /srv/one") == "65534\n"


def test_others_of_the_host_reach_no_layer(directory):
    """A set-id file there would be theirs to execute."""
    assert not directory.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def test_processes_of_one_job_may_have_different_images(engine):
    processes = [
        {"name": "a", "argv": ["cat", "/srv/two"], "image": "base:1"},
        {"name": "b", "argv": ["cat", "/srv/two"], "image": "three:1"},
    ]
    result = engine.run({"processes": processes})
    assert [result["processes"][name]["stdout"]["text"] for name in "ab"] == ["2\n", "2, again\n"]


def test_names_of_a_network_reach_an_image_that_has_none(engine):
    processes = [
        {"name": "a", "argv": ["cat", "/etc/hosts"], "image": "base:1"},
        {"name": "b", "argv": ["true"], "image": "base:1"},
    ]
    result = engine.run({"processes": processes, "network": {"mode": "isolated"}})
    assert "b\n" in result["processes"]["a"]["stdout"]["text"]


def test_a_volume_lies_in_an_image_where_that_has_a_directory_or_nothing(engine_with, directory, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "word").write_text("a word\n")
    (tmp_path / "word").chmod(0o644)
    with engine_with(
        slots=1, ready_min=0, ready_max=0, images=str(directory), volumes={"w": str(tmp_path)}
    ) as engine:
        assert sh(engine, "cat /srv/word", volumes={"/srv": "w"}) == "a word\n"
        assert sh(engine, "cat /var/lib/deep/word", "three:1", volumes={"/var/lib/deep": "w"}) == "a word\n"
        for target in ("/link", "/link/one", "/srv/two", "/bin"):
            with pytest.raises(SpecError) as error:
                sh(engine, "true", volumes={target: "w"})
            assert error.value.field == f"volumes.{target}"


@pytest.fixture
def jail_command(environment, directory):
    """Run `jail` with the store of these tests; what it printed."""

    def run(*words):
        line = [sys.executable, "-P", "-m", "jail", *words]
        env = {**environment, "JAIL_IMAGES": str(directory)}
        return subprocess.run(line, env=env, check=True, capture_output=True, text=True).stdout

    return run


def test_what_a_job_made_can_be_committed_as_a_layer_on_its_image(jail_command, directory, tmp_path):
    layer = tmp_path / "layer.tar"
    script = tmp_path / "make.py"
    script.write_text(
        "import tarfile, io\n"
        "with tarfile.open('layer.tar', 'w') as tar:\n"
        "    for name, text in (('srv/.wh.one', b''), ('srv/made', b'by a job\\n')):\n"
        "        about = tarfile.TarInfo(name)\n"
        "        about.size = len(text)\n"
        "        tar.addfile(about, io.BytesIO(text))\n"
    )
    jail_command(
        "run", "--file", f"make.py={script}", "--save", f"layer.tar={layer}", "--", "python3", "make.py"
    )
    jail_command("image", "commit", "three:1", str(layer), "--name", "made:1")
    told = jail_command("run", "--image", "made:1", "--", "sh", "-c", "cd /srv; ls; cat made")
    assert told == "made\nthree\ntwo\nby a job\n"
    # It is what it was made of, and one layer more.
    assert jail_command("run", "--image", "made:1") == "hello from /srv as the image\n"
    layers = [len(Store(directory).find(name).layers) for name in ("made:1", "three:1")]
    assert layers == [4, 3]


def test_each_image_has_languages_of_its_own(engine):
    shipped = definitions.load()
    shell = structs.replace(
        shipped.languages["bash"],
        version=("sh", "-c", "echo 1.0; cat /etc/motd >&2"),
        # Of all shells these images have that one alone.
        compile=None,
        run=structs.replace(shipped.languages["bash"].run, argv=("sh", "{source}")),
    )
    known = structs.replace(shipped, languages={"python": shipped.languages["python"], "bash": shell})
    toolchains = Toolchains(engine.engine, known)

    def tell(name, image):
        told = engine.do(toolchains.tell(known.find(name), image))
        return told.available, told.reason

    assert tell("bash", "base:1") == tell("bash", "three:1") == (True, None)
    assert tell("python", "base:1") == (False, "there is no python3")
    assert tell("python", "host") == (True, None)
    assert tell("bash", "host") == (False, "sh -c echo 1.0; cat /etc/motd >&2: nonzero_exit")
