"""The job specification: what is refused, by which name, and what a valid body becomes."""

import base64
import json
import math
import string

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from offered import Offered

from jail import spec
from jail.destinations import parse_network, parse_offer
from jail.errors import ImageError
from jail.image import Root
from jail.limits import CEILINGS, MIB, MINIMA, Limits, LimitsRequest
from jail.spec import (
    Content,
    FileContent,
    ImageOffer,
    InputFile,
    JobSpec,
    Network,
    Output,
    ProcessRequest,
    ProcessSpec,
    Program,
    Request,
    SpecError,
    StoredFile,
)

SLIM = ImageOffer(
    digest="sha256:" + "5" * 64,
    env={"PATH": "/opt/bin", "EDITION": "slim"},
    argv=("serve", "--fast"),
    directory="/srv",
)
RULES = spec.Rules(
    defaults=Limits(),
    ceilings=CEILINGS,
    images=Offered(slim=SLIM),
    policies=("default", "strict"),
    volumes=("words", "models"),
    processes=3,
    memory_bytes=CEILINGS.memory_bytes,
)
PAGE = 4096
FIELDS = Limits.__struct_fields__
INTEGERS = [field for field in FIELDS if field != "cpus"]
FEW = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)


def body(**fields):
    return json.dumps({"argv": ["true"], **fields}).encode()


def parse(**fields):
    """The one process of a job."""
    (process,) = spec.parse(body(**fields), RULES).processes
    return process


def refused(content):
    with pytest.raises(SpecError) as caught:
        spec.parse(content, RULES)
    assert caught.value.detail
    return caught.value.field


def refused_request(**fields):
    with pytest.raises(SpecError) as caught:
        spec.validate(Request(**{"argv": ["true"], **fields}), RULES)
    return caught.value.field


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"argv"',
        b"\xff",
        b'\xef\xbb\xbf{"argv":["a"]}',
        b'{"argv":["a"]} trailing',
        b'{"argv":["\xff"]}',
        b'{"argv":["\\ud800"]}',
        b'{"argv":["a"],"limits":{"cpus":NaN}}',
        b'{"argv":["a"],"limits":{"cpus":Infinity}}',
        b"[" * 100_000,
        b'{"x":' * 100_000,
    ],
)
def test_a_body_that_is_no_json_object_is_refused_as_a_whole(content):
    assert refused(content) in ("", "x")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"agrv": ["true"]}, "agrv"),
        ({"limit": {"cpu_ms": 1}}, "limit"),
        ({"limits": {"cpu_s": 1}}, "limits.cpu_s"),
        ({"limits": {"cpu_MS": 1}}, "limits.cpu_MS"),
        ({"limits": {"memory": MIB}}, "limits.memory"),
        ({"stdin": {"txt": ""}}, "stdin.txt"),
        ({"stdin": {"text": "", "executable": True}}, "stdin.executable"),
        ({"": 1}, ""),
    ],
)
def test_an_unknown_field_is_refused_by_its_name(fields, field):
    assert refused(body(**fields)) == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"argv": None}, "argv"),
        ({"argv": []}, "argv"),
        ({"argv": "true"}, "argv"),
        ({"argv": ["true", 1]}, "argv[1]"),
        ({"argv": ["a"] * 4097}, "argv"),
        ({"image": 1}, "image"),
        ({"policy": None}, "policy"),
        ({"network": "full"}, "network"),
        ({"network": None}, "network"),
        ({"network": {}}, "network.mode"),
        ({"network": {"mode": "full"}}, "network.mode"),
        ({"network": {"mode": "none", "allow": {}}}, "network.allow"),
        ({"network": {"mode": "none", "deny": []}}, "network.deny"),
        ({"network": {"mode": "egress", "allow": [{"host": "a.example"}]}}, "network.allow[0].port"),
        ({"network": {"mode": "egress", "allow": [{"port": 0}]}}, "network.allow[0].port"),
        ({"network": {"mode": "egress", "allow": [{"port": 65536}]}}, "network.allow[0].port"),
        (
            {"network": {"mode": "egress", "allow": [{"port": 1, "protocol": "icmp"}]}},
            "network.allow[0].protocol",
        ),
        ({"network": {"mode": "egress", "allow": [{"port": 1, "name": "a"}]}}, "network.allow[0].name"),
        ({"network": {"mode": "egress", "allow": [{"host": "a.example", "port": 1}] * 33}}, "network.allow"),
        ({"files": []}, "files"),
        ({"stdin": None}, "stdin"),
        ({"stdin": 1}, "stdin"),
        ({"env": []}, "env"),
        ({"outputs": "out"}, "outputs"),
        ({"outputs": [1]}, "outputs[0]"),
        ({"outputs": [str(n) for n in range(257)]}, "outputs"),
        ({"limits": None}, "limits"),
        ({"limits": 1}, "limits"),
        ({"on_output_limit": "stop"}, "on_output_limit"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_its_field(fields, field):
    assert refused(body(**fields)) == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"files": {"main.py": 1}}, "files"),
        ({"files": {"main.py": {"exec": True}}}, "files"),
        ({"env": {"NAME": 1}}, "env"),
    ],
)
def test_a_value_of_the_wrong_kind_in_a_mapping_is_refused_by_the_mapping(fields, field):
    assert refused(body(**fields)).partition("[")[0] == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ('"argv": ["b"]', "argv"),
        ('"\\u0061rgv": ["b"]', "argv"),
        ('"env": {"A": "", "A": ""}', "env.A"),
        ('"env": {}, "env": {}', "env"),
        ('"files": {"a": "", "b": "", "a": ""}', "files.a"),
        ('"files": {"a": {"text": "", "text": ""}}', "files.a.text"),
        ('"stdin": {"base64": "", "base64": ""}', "stdin.base64"),
        ('"limits": {"cpu_ms": 1, "cpu_ms": null}', "limits.cpu_ms"),
        ('"network": {"mode": "none", "mode": "none"}', "network.mode"),
    ],
)
def test_a_name_that_stands_twice_is_refused_with_its_place(fields, field):
    assert refused(b'{"argv": ["a"], %b}' % fields.encode()) == field


def test_names_that_differ_or_stand_in_different_objects_are_not_the_same():
    files = {"a": {"text": ""}, "A": {"text": ""}, "e\u0301": "", "\u00e9": ""}
    found = parse(files=files, env={"a": "a", "A": "a", "argv": "", "files": ""})
    assert [file.path for file in found.files] == list(files)


def test_a_body_without_argv_is_refused_by_that_name():
    assert refused(b"{}") == "argv"


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    "value",
    [0, -1, 10**19, 10**30, 10**400, "5", "", True, False, [], {}, math.nan, math.inf, 1e308],
    ids=str,
)
def test_a_limit_out_of_range_or_of_another_kind_is_refused_by_its_name(field, value):
    content = body(limits={field: value})
    expected = "" if isinstance(value, float) and not math.isfinite(value) else f"limits.{field}"
    assert refused(content) == expected


@pytest.mark.parametrize("field", FIELDS)
def test_a_limit_of_more_digits_than_python_prints_is_refused_by_its_name(field):
    assert refused(b'{"argv":["a"],"limits":{"%b":%b}}' % (field.encode(), b"9" * 5000)) == (
        f"limits.{field}"
    )


@pytest.mark.parametrize("field", INTEGERS)
@pytest.mark.parametrize("value", ["8192.5", "8192.0", "1e4", "-0.0"])
def test_a_whole_limit_given_as_a_fraction_is_refused_by_its_name(field, value):
    content = b'{"argv":["a"],"limits":{"%b":%b}}' % (field.encode(), value.encode())
    assert refused(content) == f"limits.{field}"


@pytest.mark.parametrize("field", FIELDS)
def test_a_limit_above_the_ceiling_is_refused_with_its_value_and_the_maximum(field):
    maximum = getattr(CEILINGS, field)
    with pytest.raises(SpecError) as caught:
        parse(limits={field: maximum + 1})
    assert caught.value.field == f"limits.{field}"
    assert str(maximum + 1) in caught.value.detail
    assert str(maximum) in caught.value.detail


@pytest.mark.parametrize(("workers", "field"), [(1, "memory_bytes"), (2, "memory_bytes"), (2, "pids")])
def test_a_refusal_tells_of_workers_where_they_are_why(workers, field):
    rules = msgspec.structs.replace(RULES, workers=workers)
    with pytest.raises(SpecError) as caught:
        spec.parse(body(limits={field: getattr(CEILINGS, field) + 1}), rules)
    named = "divided among 2 workers" in caught.value.detail
    assert named == (workers == 2 and field == "memory_bytes")


@pytest.mark.parametrize("field", FIELDS)
def test_a_limit_may_be_at_its_ceiling(field):
    maximum = getattr(CEILINGS, field)
    assert getattr(parse(limits={field: maximum}).limits, field) == maximum


@pytest.mark.parametrize("field", FIELDS)
def test_a_limit_that_is_null_is_the_default(field):
    assert parse(limits={field: None}).limits == RULES.defaults


def test_a_limit_that_is_not_a_number_cannot_come_from_the_command_line_either():
    assert refused_request(limits=LimitsRequest(cpus=math.nan)) == "limits.cpus"


@pytest.mark.parametrize("field", ["image", "policy"])
@pytest.mark.parametrize("value", ["", "none", "Default", "default\0", "../default", "\udc80"])
def test_a_name_that_is_not_offered_is_refused_by_its_field(field, value):
    assert refused_request(**{field: value}) == field


BAD_PATHS = [
    "",
    "/",
    "/etc/passwd",
    ".",
    "..",
    "./a",
    "a/.",
    "../a",
    "a/../b",
    "a/..",
    "a//b",
    "a/",
    "//a",
    "a\0b",
    "\0",
    "\ud800",
    "a\udc80",
    "n" * 256,
    "é" * 128,
    "/".join(["n" * 200] * 21),
    "/".join(["d"] * 33),
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=ascii)
def test_an_input_path_that_does_not_stay_in_the_box_is_refused_by_its_name(path):
    assert refused_request(files={path: ""}) == f"files.{path}"


@pytest.mark.parametrize("suffix", ["", "?"])
@pytest.mark.parametrize("path", BAD_PATHS, ids=ascii)
def test_an_output_path_that_does_not_stay_in_the_box_is_refused_by_its_place(path, suffix):
    assert refused_request(outputs=["fine", path + suffix]) == "outputs[1]"


@pytest.mark.parametrize(
    "path",
    [
        *("a", "...", "..a", "a..", ".hidden", "a b", "é/ü", "-rf", "~", "$HOME", "a\nb", "a\\b", "*"),
        *("n" * 255, "é" * 127, "/".join(["d"] * 32), "/".join(["n" * 200] * 20)),
    ],
    ids=ascii,
)
def test_a_path_that_names_something_beneath_the_box_is_taken_as_it_is(path):
    assert spec.check_path("files", path) == path


@pytest.mark.parametrize(
    ("outputs", "field"),
    [
        (["a", "a"], "outputs[1]"),
        (["a", "a?"], "outputs[1]"),
        (["a?", "b", "a"], "outputs[2]"),
    ],
)
def test_an_output_named_twice_is_refused_by_its_place(outputs, field):
    assert refused(body(outputs=outputs)) == field


@pytest.mark.parametrize(
    ("files", "field"),
    [
        (["a", "a/b"], "files.a/b"),
        (["a/b", "a"], "files.a/b"),
        (["a/b/c/d", "a/b"], "files.a/b/c/d"),
    ],
)
def test_a_name_that_is_a_file_and_a_directory_is_refused(files, field):
    assert refused(body(files=dict.fromkeys(files, ""))) == field


@pytest.mark.parametrize(
    "content",
    [{}, {"text": "a", "base64": "YQ=="}, {"base64": "!"}, {"base64": "YQ"}, {"base64": "é"}],
)
@pytest.mark.parametrize("field", ["stdin", "files.main.py"])
def test_content_that_is_not_exactly_one_of_text_and_base64_is_refused(field, content):
    fields = {"stdin": content} if field == "stdin" else {"files": {"main.py": content}}
    assert refused(body(**fields)) == field


@pytest.mark.parametrize("field", ["stdin", "files.a"])
def test_content_that_is_not_unicode_is_refused(field):
    content = {"stdin": "\ud800"} if field == "stdin" else {"files": {"a": "\ud800"}}
    assert refused_request(**content) == field


def test_more_files_than_can_be_are_refused():
    assert refused(body(files={str(n): "" for n in range(spec.FILES_MAX + 1)})) == "files"


@pytest.mark.parametrize(
    ("files", "fits"),
    [
        ({"a": PAGE, "b": PAGE}, True),
        ({"a": 1, "b": 1}, True),
        ({"a": 2 * PAGE, "b": 0}, True),
        ({"a": PAGE + 1, "b": 1}, False),
        ({"a": 2 * PAGE + 1}, False),
    ],
)
def test_files_have_to_fit_into_the_disk_in_whole_pages(files, fits):
    fields = {
        "files": {name: "x" * size for name, size in files.items()},
        "limits": {"disk_bytes": 2 * PAGE},
    }
    if fits:
        assert len(parse(**fields).files) == len(files)
    else:
        assert refused(body(**fields)) == "files"


@pytest.mark.parametrize(
    ("files", "fits"),
    [
        (["a", "b", "c"], True),
        (["a", "b", "c", "d"], False),
        (["d/a", "d/b"], True),
        (["d/e/a", "f"], False),
        (["d/a", "e/b"], False),
    ],
)
def test_files_their_directories_and_the_root_have_to_fit_into_the_inodes(files, fits):
    fields = {"files": dict.fromkeys(files, ""), "limits": {"files": 4}}
    if fits:
        assert len(parse(**fields).files) == len(files)
    else:
        assert refused(body(**fields)) == "files"


@pytest.mark.parametrize(
    ("argv", "field"),
    [
        ([""], "argv[0]"),
        (["a\0"], "argv[0]"),
        (["a", "\0"], "argv[1]"),
        (["a", "\udc80"], "argv[1]"),
        (["a", "x" * (spec.STRING_BYTES_MAX + 1)], "argv[1]"),
        (["a", "é" * (spec.STRING_BYTES_MAX // 2 + 1)], "argv[1]"),
        (["a", *["x" * 100_000] * 11], "argv"),
    ],
    ids=range(7),
)
def test_arguments_that_execve_would_refuse_are_refused(argv, field):
    assert refused_request(argv=argv) == field


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "x"),
        ("=", "x"),
        ("A=B", "x"),
        ("A\0", "x"),
        ("A", "x\0"),
        ("A", "\ud800"),
        ("\udc80", ""),
        ("A", "x" * (spec.STRING_BYTES_MAX - 1)),
    ],
    ids=range(8),
)
def test_a_variable_that_execve_would_refuse_or_twist_is_refused_by_its_name(name, value):
    assert refused_request(env={name: value}) == f"env.{name}"


def test_arguments_and_environment_have_to_fit_into_a_quarter_of_the_stack():
    stack_bytes = MINIMA.stack_bytes
    room = stack_bytes // 4 - sum(len(f"{n}={v}") + 1 for n, v in spec.DEFAULT_ENV.items())
    limits = LimitsRequest(stack_bytes=stack_bytes)
    assert spec.validate(Request(argv=["x" * (room - 1)], limits=limits), RULES)
    assert refused_request(argv=["x" * room], limits=limits) == "argv"


def test_the_longest_argument_is_taken():
    assert parse(argv=["true", "x" * spec.STRING_BYTES_MAX]).argv[1]


def test_what_is_not_said_is_the_default():
    assert parse() == ProcessSpec(
        argv=("true",),
        image="host",
        policy="default",
        files=(),
        stdin=b"",
        env=spec.DEFAULT_ENV,
        outputs=(),
        limits=RULES.defaults,
        truncate=False,
    )


def test_a_whole_body_becomes_the_job_it_says():
    found = parse(
        argv=["sh", "-c", ""],
        image="slim",
        policy="strict",
        network="none",
        files={
            "a.txt": "é",
            "bin/b": {"base64": "AP8=", "executable": True},
            "c": {"text": "c"},
        },
        stdin={"base64": "/w=="},
        env={"LANG": "C", "X": ""},
        outputs=["out", "maybe?", "odd??"],
        limits={"cpu_ms": 5, "cpus": 2},
        on_output_limit="truncate",
    )
    assert found == ProcessSpec(
        argv=("sh", "-c", ""),
        image="slim",
        policy="strict",
        files=(
            InputFile("a.txt", "é".encode(), 0o644),
            InputFile("bin/b", b"\0\xff", 0o755),
            InputFile("c", b"c", 0o644),
        ),
        stdin=b"\xff",
        root=Root(SLIM.digest),
        env={**spec.DEFAULT_ENV, **SLIM.env, "LANG": "C", "X": ""},
        outputs=(Output("out", False), Output("maybe", True), Output("odd?", True)),
        limits=Limits(cpu_ms=5, cpus=2.0),
        truncate=True,
    )


OFFERED = ("*.example:443/tcp", "db:5432/tcp", "8.0.0.0/8:*/udp", "*:80/tcp")
EGRESS = msgspec.structs.replace(
    RULES,
    networks=("none", "isolated", "egress"),
    egress=tuple(map(parse_offer, OFFERED)),
    egress_private=(parse_network("10.1.0.0/16"),),
)


def egress(*allow, mode="egress", **fields):
    return spec.parse(body(network={"mode": mode, "allow": list(allow)}, **fields), EGRESS)


def refused_egress(*allow, **fields):
    with pytest.raises(SpecError) as caught:
        egress(*allow, **fields)
    return str(caught.value)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"host": "A.Example", "port": 443}, "a.example:443/tcp"),
        ({"host": "a.example", "port": 443, "protocol": "tcp"}, "a.example:443/tcp"),
        ({"cidr": "8.8.8.8", "port": 53, "protocol": "udp"}, "8.8.8.8/32:53/udp"),
        ({"cidr": "8.8.0.0/16", "port": 53, "protocol": "udp"}, "8.8.0.0/16:53/udp"),
        ({"cidr": "2606:4700::/32", "port": 80}, "[2606:4700::/32]:80/tcp"),
        # Listed by the operator, though it is private.
        ({"cidr": "10.1.2.0/24", "port": 80}, "10.1.2.0/24:80/tcp"),
    ],
)
def test_a_destination_that_is_offered_is_taken(asked, text):
    job = egress(asked)
    assert [str(found) for found in job.destinations] == [text]
    assert job.network.mode == "egress"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"port": 443}, "exactly one"),
        ({"host": "a.example", "cidr": "8.8.8.8", "port": 443}, "exactly one"),
        ({"host": "a.example", "port": 444}, "not offered"),
        ({"host": "a.example", "port": 443, "protocol": "udp"}, "not offered"),
        ({"host": "a.other", "port": 443}, "not offered"),
        ({"cidr": "9.9.9.9", "port": 53, "protocol": "udp"}, "not offered"),
        ({"cidr": "8.0.0.0/7", "port": 53, "protocol": "udp"}, "not offered"),
        ({"host": "8.8.8.8", "port": 80}, "address"),
        ({"host": "a_b.example", "port": 80}, "not the name"),
        ({"cidr": "8.8.8.8/24", "port": 80}, "no network"),
        ({"cidr": "a.example", "port": 80}, "no network"),
        # Offered by "*", and refused all the same.
        ({"cidr": "127.0.0.1", "port": 80}, "loopback"),
        ({"cidr": "169.254.169.254", "port": 80}, "metadata"),
        ({"cidr": "::ffff:169.254.169.254", "port": 80}, "IPv4-mapped"),
        ({"cidr": "fd00:ec2::254", "port": 80}, "metadata"),
        ({"cidr": "10.2.0.0/24", "port": 80}, "private"),
        ({"cidr": "10.0.0.0/8", "port": 80}, "jail's own"),
        ({"cidr": "0.0.0.0/0", "port": 80}, "RFC"),
    ],
)
def test_a_destination_that_is_not_is_refused_by_its_place(asked, why):
    told = refused_egress({"host": "a.example", "port": 443}, asked)
    assert told.startswith("network.allow[1]: ")
    assert why in told


def test_egress_is_not_offered_where_the_operator_has_not_switched_it_on():
    asked = {"mode": "egress", "allow": [{"host": "a.example", "port": 443}]}
    assert refused(body(network=asked)) == "network.mode"


def test_destinations_go_with_egress_and_egress_with_destinations():
    assert refused_egress().startswith("network.allow: names nothing")
    for mode in ("none", "isolated"):
        assert refused_egress({"host": "a.example", "port": 443}, mode=mode).startswith(
            "network.allow: nothing"
        )
        assert egress(mode=mode).destinations == ()


def test_a_host_is_no_process():
    network = {"mode": "egress", "allow": [{"host": "db", "port": 5432}]}
    for name, is_refused in (("db", True), ("web", False)):
        content = json.dumps({"processes": [{"name": name, "argv": ["true"]}], "network": network}).encode()
        if is_refused:
            with pytest.raises(SpecError, match="one of the processes"):
                spec.parse(content, EGRESS)
        else:
            assert spec.parse(content, EGRESS).destinations


def test_a_network_that_is_not_offered_is_refused_and_one_that_is_offered_is_taken():
    isolated = {"mode": "isolated"}
    assert refused(body(network=isolated)) == "network.mode"
    offering = msgspec.structs.replace(RULES, networks=("none", "isolated"))
    assert spec.parse(body(network=isolated), offering).network == Network("isolated")
    for none in ("none", {"mode": "none"}):
        assert spec.parse(body(network=none), RULES).network == Network("none")
    assert spec.parse(body(), RULES).network == Network("none")


A = {"name": "a", "argv": ["true"]}
B = {"name": "b", "argv": ["cat"]}


def group(*processes, **fields):
    return json.dumps({"processes": processes, **fields}).encode()


def test_a_job_of_several_processes_is_each_of_them_with_its_name():
    limits = {"cpu_ms": 7}
    found = spec.parse(group(A, {**B, "background": True, "stdin": "x", "limits": limits}), RULES)
    one, other = parse(argv=["true"]), parse(argv=["cat"], stdin="x", limits=limits)
    assert found.processes == (
        msgspec.structs.replace(one, name="a"),
        msgspec.structs.replace(other, name="b", background=True),
    )
    assert found.memory_bytes == 2 * RULES.defaults.memory_bytes


def test_a_job_may_be_one_process_with_a_name():
    (process,) = spec.parse(group(A), RULES).processes
    assert (process.name, process.background) == ("a", False)


@pytest.mark.parametrize(
    ("processes", "field"),
    [
        ([], "processes"),
        ([{**A, "name": f"a{n}"} for n in range(4)], "processes"),
        ([{**A, "name": f"a{n}"} for n in range(17)], "processes"),
        ([A, B["argv"]], "processes[1]"),
        ([{"argv": ["true"]}], "processes[0].name"),
        ([{"name": "a"}], "processes[0].argv"),
        ([A, {**B, "nme": 1}], "processes[1].nme"),
        ([A, {**B, "network": "none"}], "processes[1].network"),
        ([A, {**B, "processes": []}], "processes[1].processes"),
        ([A, {**B, "background": 1}], "processes[1].background"),
        ([{**A, "background": True}], "processes"),
        ([{**A, "background": True}, {**B, "background": True}], "processes"),
        ([A, A], "processes[1].name"),
        ([A, B, {**B, "argv": ["x"]}], "processes[2].name"),
        ([A, {**B, "image": "debian"}], "processes[1].image"),
        ([A, {**B, "policy": "none"}], "processes[1].policy"),
        ([A, {**B, "argv": [""]}], "processes[1].argv[0]"),
        ([A, {**B, "limits": {"cpu_ms": 0}}], "processes[1].limits.cpu_ms"),
        ([A, {**B, "limits": {"cpu_s": 1}}], "processes[1].limits.cpu_s"),
        ([A, {**B, "files": {"/a": ""}}], "processes[1].files./a"),
        ([A, {**B, "env": {"": ""}}], "processes[1].env."),
        ([A, {**B, "outputs": ["a", "a"]}], "processes[1].outputs[1]"),
    ],
    ids=range(22),
)
def test_what_is_wrong_with_a_process_is_told_by_its_place(processes, field):
    assert refused(group(*processes)) == field


@pytest.mark.parametrize("name", ["a", "a1", "a-b", "web-server-2", "a" * 63, "xn--a"])
def test_a_name_that_a_host_could_have_is_taken(name):
    assert spec.parse(group({**A, "name": name}), RULES).processes[0].name == name


@pytest.mark.parametrize(
    "name",
    ["", "A", "1a", "-a", "a-", "a_b", "a.b", "a b", "a\n", "a\0", "é", "localhost", "a" * 64],
    ids=ascii,
)
def test_a_name_that_is_no_label_of_a_host_or_taken_by_each_sandbox_is_refused(name):
    assert refused(group(B, {**A, "name": name})) == "processes[1].name"


@pytest.mark.parametrize("field", [*ProcessRequest.__struct_fields__, "agrv"])
@pytest.mark.parametrize("is_first", [True, False])
def test_beside_processes_nothing_of_a_job_stands_but_its_network(field, is_first):
    fields = {field: None, "processes": [A]} if is_first else {"processes": [A], field: None}
    with pytest.raises(SpecError) as caught:
        spec.parse(json.dumps(fields).encode(), RULES)
    assert caught.value.field == field
    assert ("each of `processes`" in caught.value.detail) == (field in Program.__struct_fields__)


@pytest.mark.parametrize("value", [None, 1, "a", {}, {"a": A}])
def test_processes_that_are_no_list_are_refused(value):
    assert refused(json.dumps({"processes": value}).encode()) == "processes"


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b'{"processes": [], "processes": []}', "processes"),
        (b'{"processes": [{"name": "a", "argv": ["a"]}], "\\u0070rocesses": []}', "processes"),
        (b'{"processes": [{"name": "a", "argv": ["a"], "argv": ["b"]}]}', "processes[0].argv"),
        (
            b'{"processes": [%b, {"name": "b", "argv": ["a"], "env": {"A": "", "A": ""}}]}',
            "processes[1].env.A",
        ),
    ],
    ids=range(4),
)
def test_a_name_that_stands_twice_among_processes_is_refused_with_its_place(content, field):
    assert refused(content.replace(b"%b", json.dumps(A).encode())) == field


def test_a_name_may_stand_in_each_of_the_processes():
    assert len(spec.parse(group({**A, "env": {"X": "1"}}, {**B, "env": {"X": "2"}}), RULES).processes) == 2


def test_processes_spelt_with_an_escape_are_processes():
    assert spec.parse(group(A).replace(b"processes", b"\\u0070rocesses"), RULES).processes[0].name == "a"


def test_the_memory_of_all_processes_together_is_bounded():
    half = {"memory_bytes": RULES.memory_bytes // 2}
    assert len(spec.parse(group({**A, "limits": half}, {**B, "limits": half}), RULES).processes) == 2
    more = {"memory_bytes": RULES.memory_bytes // 2 + 1}
    for workers in (1, 2):
        rules = msgspec.structs.replace(RULES, workers=workers)
        with pytest.raises(SpecError) as caught:
            spec.parse(group({**A, "limits": half}, {**B, "limits": more}), rules)
        assert caught.value.field == "processes"
        assert str(RULES.memory_bytes + 1) in caught.value.detail
        assert f"the maximum is {RULES.memory_bytes}" in caught.value.detail
        assert ("divided among 2 workers" in caught.value.detail) == (workers == 2)


def test_more_processes_than_there_are_slots_are_refused_with_the_maximum():
    with pytest.raises(SpecError) as caught:
        spec.parse(group(*({**A, "name": f"a{n}"} for n in range(4))), RULES)
    assert caught.value.detail == "4 of them; the maximum is 3"


def test_a_jobs_environment_is_not_the_default_itself():
    assert parse().env is not spec.DEFAULT_ENV


def test_an_error_tells_its_field_and_its_detail():
    error = SpecError("limits.pids", "too many")
    assert (error.field, error.detail, str(error)) == ("limits.pids", "too many", "limits.pids: too many")


# Among its letters are those by which msgspec marks a place.
TEXT = st.text("a\0é\ud800`$. -", max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)
PATHS = st.text("ab/.?\0é", max_size=8)
CONTENTS = TEXT | st.fixed_dictionaries(
    {}, optional={"text": SCALARS, "base64": st.text("AQ=!", max_size=8), "executable": SCALARS}
)
NEARLY = st.fixed_dictionaries(
    {"argv": st.lists(TEXT, max_size=4) | VALUES},
    optional={
        "image": st.sampled_from(RULES.images.names()) | VALUES,
        "policy": st.sampled_from(RULES.policies) | VALUES,
        "network": st.just("none") | VALUES,
        "files": st.dictionaries(PATHS, CONTENTS | VALUES, max_size=4) | VALUES,
        "stdin": CONTENTS | VALUES,
        "env": st.dictionaries(TEXT, TEXT, max_size=4) | VALUES,
        "outputs": st.lists(PATHS, max_size=4) | VALUES,
        "limits": st.dictionaries(st.sampled_from(FIELDS) | TEXT, SCALARS, max_size=4) | VALUES,
        "on_output_limit": st.sampled_from(["kill", "truncate"]) | VALUES,
        "unknown": VALUES,
    },
)
NEARLY_PROCESS = st.builds(
    lambda program, more: program | more,
    NEARLY,
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["a", "b", "localhost"]) | VALUES,
            "background": st.booleans() | VALUES,
        },
    ),
)
NEARLY_GROUP = st.fixed_dictionaries(
    {"processes": st.lists(NEARLY_PROCESS, max_size=5)},
    optional={"network": st.just("none") | VALUES, "argv": VALUES},
)


def is_job_or_refusal(content):
    try:
        return isinstance(spec.parse(content, RULES), JobSpec)
    except SpecError as error:
        return isinstance(error.field, str) and bool(error.detail)


@FEW
@given(st.binary(max_size=200))
def test_any_bytes_are_a_job_or_refused(content):
    assert is_job_or_refusal(content)


@FEW
@given(VALUES)
def test_any_json_value_is_a_job_or_refused(value):
    assert is_job_or_refusal(json.dumps(value).encode())


@FEW
@given(NEARLY | NEARLY_GROUP)
def test_any_value_in_any_field_is_a_job_or_refused(value):
    assert is_job_or_refusal(json.dumps(value).encode())


def encoded(content):
    return {"base64": base64.b64encode(content).decode()}


# A directory's name begins with "d", a file's with "f": so they never meet.
NAMES = st.text(string.ascii_letters + ".-é", max_size=6)
DIRECTORIES = st.lists(NAMES.map("d{}".format), max_size=3)
FILES = st.builds(lambda above, name: "/".join([*above, f"f{name}"]), DIRECTORIES, NAMES)
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        field: st.integers(getattr(RULES.defaults, field), getattr(CEILINGS, field)) for field in INTEGERS
    }
    | {"cpus": st.floats(MINIMA.cpus, CEILINGS.cpus)},
)


@FEW
@given(
    argv=st.lists(WORDS.filter(bool), min_size=1, max_size=4),
    stdin=st.binary(max_size=20),
    files=st.dictionaries(FILES, st.tuples(st.binary(max_size=20), st.booleans()), max_size=4),
    env=st.dictionaries(WORDS.filter(lambda name: name and "=" not in name), WORDS, max_size=4),
    outputs=st.dictionaries(FILES, st.booleans(), max_size=4),
    limits=LIMITS,
)
def test_a_valid_body_becomes_the_job_it_says(argv, stdin, files, env, outputs, limits):
    found = parse(
        argv=argv,
        stdin=encoded(stdin),
        files={path: {**encoded(content), "executable": x} for path, (content, x) in files.items()},
        env=env,
        outputs=[path + "?" * optional for path, optional in outputs.items()],
        limits=limits,
    )
    assert found.argv == tuple(argv)
    assert found.stdin == stdin
    assert found.env == {**spec.DEFAULT_ENV, **env}
    assert {(f.path, f.content, f.mode) for f in found.files} == {
        (path, content, 0o755 if x else 0o644) for path, (content, x) in files.items()
    }
    assert {(output.path, output.optional) for output in found.outputs} == set(outputs.items())
    for field in FIELDS:
        assert getattr(found.limits, field) == limits.get(field, getattr(RULES.defaults, field))


def test_content_in_hand_is_checked_as_content_that_was_sent():
    request = Request(
        argv=["a"], stdin=Content(text="é"), files={"f": FileContent(base64="AA==", executable=True)}
    )
    (found,) = spec.validate(request, RULES).processes
    assert (found.stdin, found.files) == ("é".encode(), (InputFile("f", b"\0", 0o755),))


@pytest.mark.parametrize("limit", ["stdout_bytes", "stderr_bytes", "output_bytes"])
def test_together_processes_bring_home_no_more_than_one_could(limit):
    most = getattr(RULES.ceilings, limit)

    def job(*values):
        processes = [
            {"name": f"p{n}", "argv": ["true"], "outputs": ["a"], "limits": {limit: value}}
            for n, value in enumerate(values)
        ]
        return json.dumps({"processes": processes}).encode()

    assert spec.parse(job(most - 1, 1), RULES)
    with pytest.raises(SpecError) as refused:
        spec.parse(job(most - 1, 2), RULES)
    assert (refused.value.field, str(most) in refused.value.detail) == ("processes", True)


def test_outputs_that_are_not_asked_for_do_not_count():
    most = {"output_bytes": RULES.ceilings.output_bytes}
    processes = [{"name": f"p{n}", "argv": ["true"], "limits": most} for n in range(2)]
    assert spec.parse(json.dumps({"processes": processes}).encode(), RULES)


def test_what_an_image_says_stands_unless_the_job_says_otherwise():
    process = parse(image="slim", env={"EDITION": "mine"})
    assert process.env == {**spec.DEFAULT_ENV, "PATH": "/opt/bin", "EDITION": "mine"}
    assert (process.argv, process.directory) == (("true",), "/box")
    assert process.root.digest == SLIM.digest


def test_without_argv_a_job_is_the_command_of_its_image_where_that_wants_to_be():
    process = spec.parse(b'{"image": "slim"}', RULES).processes[0]
    assert (process.argv, process.directory) == (("serve", "--fast"), "/srv")


@pytest.mark.parametrize("content", [b"{}", b'{"image": "host"}'])
def test_without_argv_an_image_has_to_name_a_command(content):
    assert refused(content) == "argv"


def test_volumes_are_told_apart_by_where_they_are_and_not_by_their_order():
    one = parse(volumes={"/data/b": "words", "/data/a": "models"})
    assert one.root.volumes == (("data/a", "models"), ("data/b", "words"))
    assert parse(volumes={"/data/a": "models", "/data/b": "words"}).root == one.root
    assert parse().root == parse(image="host").root != one.root


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "data",
        "//data",
        "/data/",
        "/data/../etc",
        "/./data",
        "/box",
        "/box/in",
        "/proc/x",
        "/dev",
        "/tmp/x",
    ],
)
def test_a_volume_lies_beneath_the_root_and_in_nothing_that_every_sandbox_has(path):
    assert refused(body(volumes={path: "words"})) == f"volumes.{path}"


def test_where_volumes_are_has_no_long_name():
    longest = "/" + "d" * 100 + "/" + "d" * (spec.VOLUME_PATH_BYTES_MAX - 102)
    assert parse(volumes={longest: "words"}).root.volumes == ((longest[1:], "words"),)
    assert refused(body(volumes={longest + "d": "words"})) == f"volumes.{longest}d"


def test_a_volume_that_is_not_offered_is_refused():
    assert refused(body(volumes={"/data": "secrets"})) == "volumes./data"


def test_a_volume_beneath_another_is_refused():
    volumes = {"/data": "words", "/data/models": "models"}
    assert refused(body(volumes=volumes)) == "volumes./data/models"


def test_a_volume_where_the_image_has_something_else_is_refused():
    rules = msgspec.structs.replace(RULES, images=Offered(obstacles=["lib/words"]))
    with pytest.raises(SpecError) as error:
        spec.parse(body(volumes={"/lib/words": "words"}), rules)
    assert (error.value.field, error.value.detail) == ("volumes./lib/words", "is in the way")


def test_more_volumes_than_there_may_be_are_refused():
    volumes = {f"/data/{number}": "words" for number in range(spec.VOLUMES_MAX + 1)}
    assert refused(body(volumes=volumes)) == "volumes"


def test_an_image_that_is_damaged_is_refused_with_what_is_wrong():
    def find(_name):
        raise ImageError("The manifest is not valid.", "Import it again.")

    offered = Offered()
    offered.find = find
    with pytest.raises(SpecError) as error:
        spec.parse(body(image="slim"), msgspec.structs.replace(RULES, images=offered))
    assert (error.value.field, error.value.detail) == (
        "image",
        "'slim' cannot be used: The manifest is not valid.",
    )


# Stored files

KNOWN, UNKNOWN = (f"sha256:{digit * 64}" for digit in "ab")


class Stored:
    """Files of "someone"."""

    def find(self, digest, owner):
        return {(KNOWN, "someone"): 5000}.get((digest, owner))


SOMEONES = msgspec.structs.replace(RULES, files=Stored(), owner="someone")


def refused_stored(rules=SOMEONES, **fields):
    with pytest.raises(SpecError) as caught:
        spec.parse(body(**fields), rules)
    return caught.value.field, caught.value.detail


def test_stored_files_are_named_in_place_of_their_content():
    request = body(files={"a/b": {"file": KNOWN}, "c": "text"}, stdin={"file": KNOWN})
    (process,) = spec.parse(request, SOMEONES).processes
    assert process.stored == (StoredFile("a/b", KNOWN, 5000),)
    assert process.stored_stdin == StoredFile("", KNOWN, 5000)
    assert process.files == (InputFile("c", b"text", 0o644),)
    assert (process.stdin, process.owner, process.borrows) == (b"", "someone", True)


def test_a_job_without_stored_files_borrows_nothing():
    (process,) = spec.parse(body(files={"c": "text"}, stdin="x"), SOMEONES).processes
    assert not process.borrows


@pytest.mark.parametrize("owner", ["someone else", ""])
def test_a_file_of_another_is_as_unknown_as_one_that_is_not_there(owner):
    rules = msgspec.structs.replace(SOMEONES, owner=owner)
    field, detail = refused_stored(rules, files={"a": {"file": KNOWN}})
    assert (field, detail.replace(KNOWN, UNKNOWN)) == refused_stored(files={"a": {"file": UNKNOWN}})
    assert refused_stored(rules, stdin={"file": KNOWN})[0] == "stdin"


def test_where_no_files_are_stored_none_is_known():
    assert refused_stored(RULES, stdin={"file": KNOWN})[0] == "stdin"


@pytest.mark.parametrize(
    "digest", ["", "a" * 64, KNOWN.upper(), KNOWN + "\n", f"{KNOWN}/../x", "sha256:../x"]
)
def test_what_is_no_digest_is_refused_as_such(digest):
    assert "is no digest" in refused_stored(files={"a": {"file": digest}})[1]


@pytest.mark.parametrize("more", [{"text": ""}, {"base64": ""}])
def test_a_content_is_of_one_kind(more):
    assert "exactly one" in refused_stored(files={"a": {"file": KNOWN, **more}})[1]
    assert "exactly one" in refused_stored(stdin={"file": KNOWN, **more})[1]


def test_a_stored_file_is_no_directory_either():
    assert refused_stored(files={"a": {"file": KNOWN}, "a/b": "x"})[0] == "files.a/b"
    assert refused_stored(files={"../a": {"file": KNOWN}})[0] == "files.../a"


def test_stored_files_are_few():
    files = {str(number): {"file": KNOWN} for number in range(65)}
    assert refused_stored(files=files) == ("files", "65 stored files; the maximum is 64")


def test_a_stored_file_is_no_output_of_the_job_that_has_it():
    assert refused_stored(files={"a": {"file": KNOWN}}, outputs=["b", "a?"])[0] == "outputs[1]"


def test_an_output_is_stored_when_it_is_asked_for():
    (process,) = spec.parse(
        body(outputs=["a", {"path": "b", "store": True}, {"path": "c?", "store": True}, {"path": "d"}]), RULES
    ).processes
    assert process.outputs == (
        Output("a", False),
        Output("b", False, True),
        Output("c", True, True),
        Output("d", False),
    )


def test_an_output_is_named_once_whatever_becomes_of_it():
    assert refused(body(outputs=["a", {"path": "a", "store": True}])) == "outputs[1]"
    assert refused(body(outputs=[{"path": "../a", "store": True}])) == "outputs[0]"
