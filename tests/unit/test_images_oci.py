"""The documents of images: what is read, what is refused, and what comes of it."""

import json

import msgspec
import pytest

from jail.errors import ImageError
from jail.images import oci
from jail.images.oci import Descriptor, Index, Manifest, Platform

A, B, C = (f"sha256:{digit * 64}" for digit in "abc")
HERE = Platform("amd64", "linux")


def document(**changed):
    layer = {"mediaType": f"{oci.LAYER_TYPE}+gzip", "digest": A, "size": 3}
    config = {"mediaType": oci.CONFIG_TYPE, "digest": B, "size": 4}
    whole = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST_TYPE,
        "config": config,
        "layers": [layer],
        **changed,
    }
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


def config(settings=None, **changed):
    whole = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [A]}, **changed}
    return json.dumps({**whole, "config": settings}).encode()


def index(*entries):
    return json.dumps({"schemaVersion": 2, "manifests": list(entries)}).encode()


def entry(media_type=oci.MANIFEST_TYPE, digest=A, **more):
    return {"mediaType": media_type, "digest": digest, "size": 3, **more}


def refusal(parse, *arguments):
    with pytest.raises(ImageError) as caught:
        parse(*arguments)
    assert len(str(caught.value)) < 1000
    return caught.value.cause


def test_a_manifest_names_its_configuration_and_layers():
    found = oci.parse_manifest(document())
    assert (found.config.digest, [layer.digest for layer in found.layers]) == (B, [A])


@pytest.mark.parametrize("media_type", [None, *oci.MANIFEST_TYPES])
def test_manifests_are_of_the_specification_or_of_docker_and_may_leave_that_open(media_type):
    assert oci.parse_manifest(document(mediaType=media_type)).layers


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"mediaType": oci.INDEX_TYPE}, "says that it is"),
        ({"manifests": []}, "'manifests'"),
        ({"fsLayers": []}, "'fsLayers'"),
        ({"schemaVersion": 1}, "schemaVersion is 1"),
        ({"schemaVersion": True}, "not valid"),
        ({"layers": []}, "not valid"),
        ({"layers": [entry(oci.LAYER_TYPE)] * 128}, "not valid"),
        ({"layers": [entry(f"{oci.LAYER_TYPE}+encrypted")]}, "encrypted"),
        ({"layers": [entry("text/html")]}, "text/html"),
        ({"config": entry("application/vnd.unknown.config.v1+json")}, "no image of a file system"),
        ({"config": None}, "not valid"),
    ],
)
def test_what_is_no_image_is_refused_as_a_manifest(changed, word):
    assert word in refusal(oci.parse_manifest, document(**changed))


@pytest.mark.parametrize(
    "digest",
    [
        f"sha512:{'a' * 128}",
        f"sha256:{'a' * 63}",
        f"sha256:{'A' * 64}",
        f"sha256:{'a' * 64}\n",
        f"sha256:../{'a' * 61}",
        f"../../{'a' * 64}",
        "",
    ],
)
def test_a_digest_is_the_name_of_a_file_and_of_nothing_else(digest):
    assert "not valid" in refusal(oci.parse_index, index(entry(digest=digest)))
    assert not oci.is_digest(digest)


@pytest.mark.parametrize("size", [-1, 1 << 51, 1e30, "3", None])
def test_sizes_are_bounded_numbers(size):
    assert "not valid" in refusal(oci.parse_index, index({**entry(), "size": size}))


@pytest.mark.parametrize(
    "bomb",
    [
        b"",
        b"\xff",
        b"[" * 1_000_000,
        b'{"x":' + b'{"a":' * 500_000,
        b'{"schemaVersion":' + b"9" * 1_000_000 + b"}",
        b'{"manifests":[' + b"0," * 1_000_000,
        b"{" + b",".join(b'"%d":{}' % number for number in range(200_000)) + b"}",
        b" " * (50 << 20),
    ],
    ids=["empty", "bytes", "arrays", "objects", "digits", "numbers", "fields", "long"],
)
def test_json_bombs_are_refused(bomb):
    for parse in (oci.parse_manifest, oci.parse_config):
        refusal(parse, bomb)
    if not bomb.startswith(b'{"0"'):
        refusal(oci.parse_index, bomb)


@pytest.mark.parametrize("field", ["config", "layers", "fsLayers"])
def test_an_index_that_is_an_image_as_well_is_refused(field):
    raw = json.dumps({"schemaVersion": 2, "manifests": [], field: []}).encode()
    assert f"{field!r}" in refusal(oci.parse_index, raw)


def test_an_index_has_a_bounded_number_of_entries():
    assert "not valid" in refusal(oci.parse_index, index(*[entry()] * (oci.ENTRIES_MAX + 1)))


def test_documents_are_written_as_they_are_read():
    found = oci.parse_manifest(document())
    assert oci.parse_manifest(oci.encode(found)) == found
    assert oci.encode(found) == oci.encode(oci.parse_manifest(oci.encode(found)))


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ([("amd64", "linux")], 0),
        ([("arm64", "linux"), ("amd64", "windows"), ("amd64", "linux"), ("amd64", "linux")], 2),
        ([None], 0),
    ],
)
def test_the_manifest_for_this_platform_is_chosen(given, chosen):
    entries = tuple(
        Descriptor(oci.MANIFEST_TYPE, A, number, platform=each and Platform(*each))
        for number, each in enumerate(given)
    )
    assert oci.choose(Index(manifests=entries), HERE) == entries[chosen]


def test_an_index_without_an_image_for_this_platform_tells_what_there_is():
    entries = [entry(platform={"architecture": name, "os": "linux"}) for name in ("s390x", "arm64")]
    found = oci.parse_index(index(*entries))
    assert "there are: linux/arm64, linux/s390x." in refusal(oci.choose, found, HERE)


def test_what_an_index_says_of_platforms_is_safe_to_tell():
    hostile = entry(platform={"architecture": "\x1b[2J", "os": "linux"})
    assert "not valid" in refusal(oci.parse_index, index(hostile))


def test_an_image_for_another_platform_is_refused():
    oci.refuse_foreign(oci.parse_config(config()), HERE)
    oci.refuse_foreign(oci.parse_config(config(architecture="", os="")), HERE)
    foreign = oci.parse_config(config(architecture="arm64"))
    assert "is for linux/arm64" in refusal(oci.refuse_foreign, foreign, HERE)


def test_settings_are_followed_or_named():
    settings = {
        "Env": ["A=1", "B="],
        "WorkingDir": "/work",
        "Entrypoint": ["/bin/sh"],
        "Cmd": None,
        "User": "1000:users",
        "Volumes": {"/data": {}},
        "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["true"]},
        "StopSignal": "SIGINT",
        "Labels": None,
        "Tty": False,
    }
    found = oci.parse_config(config(settings))
    expected = oci.Honoured(("A=1", "B="), "/work", ("/bin/sh",), (), "1000:users")
    assert found.honoured == expected
    assert found.ignored == ("ExposedPorts", "Healthcheck", "StopSignal", "Volumes")


def test_a_configuration_without_settings_asks_for_nothing():
    found = oci.parse_config(config())
    assert (found.honoured, found.ignored) == (oci.Honoured(), ())


@pytest.mark.parametrize(
    "settings",
    [
        {"Env": ["A"]},
        {"Env": ["=1"]},
        {"Env": ["A=1\0"]},
        {"Env": "A=1"},
        {"Cmd": ["a\0"]},
        {"Cmd": "echo"},
        {"WorkingDir": "work"},
        {"WorkingDir": "/" + "a" * 4095},
        {"User": 1000},
    ],
)
def test_settings_that_no_job_could_follow_are_refused(settings):
    assert "not valid" in refusal(oci.parse_config, config(settings))


def test_the_settings_survive_being_written():
    found = oci.parse_config(config({"Env": ["A=1"]}))
    assert msgspec.json.decode(oci.encode(found))["config"] == {"Env": ["A=1"]}


def test_layers_say_how_they_are_compressed():
    found = {media_type.rpartition(".")[2]: oci.compression(media_type) for media_type in oci.LAYER_TYPES}
    assert found == {"tar": "none", "tar+gzip": "gzip", "tar+zstd": "zstd", "gzip": "gzip", "zstd": "zstd"}


def test_a_described_document_is_found_by_its_digest():
    raw = oci.encode(Manifest(config=Descriptor(oci.CONFIG_TYPE, A, 1), layers=()))
    found = oci.describe(raw, oci.MANIFEST_TYPE)
    assert (found.digest, found.size) == (oci.digest(raw), len(raw))
