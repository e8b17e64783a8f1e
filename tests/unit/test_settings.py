"""Settings: file, variables, what is refused, and what is filled in."""

import re

import msgspec
import pytest

from jail import host, settings
from jail.limits import CEILINGS, MIB, PROCESSES_MAX, Limits
from jail.settings import Settings, SettingsError

GIB = 1 << 30


@pytest.fixture(autouse=True)
def a_host(monkeypatch):
    """A host of a known size, and no settings of whoever runs the tests."""
    monkeypatch.setattr(host, "processors", lambda: (0, 1, 2, 3, 4, 5))
    monkeypatch.setattr(host, "cpus", lambda: 6)
    monkeypatch.setattr(host, "memory_bytes", lambda: 16 * GIB)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "jail.toml"
        path.write_text(text)
        return str(path)

    return write


def refusal(environment, config=None):
    with pytest.raises(SettingsError) as caught:
        settings.load(environment, config)
    return str(caught.value)


def test_without_a_file_or_variables_everything_is_its_default():
    found = settings.load({})
    state = "/home/someone/.local/state/jail"
    filled_in = {"slots": 6, "processes": 6, "memory_bytes": 12 * GIB}
    kept = {"images": f"{state}/images", "files": f"{state}/files"}
    assert found == Settings(state=state, **kept, **filled_in)


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ({}, 6),
        ({"slots": "64"}, PROCESSES_MAX),
        ({"slots": "64", "processes": "100"}, PROCESSES_MAX),
        ({"slots": "4", "processes": "3"}, 3),
        ({"slots": "4", "processes": "9"}, 4),
        ({"slots": "4", "processes": "0"}, 0),
        # The smaller of the two workers has two.
        ({"slots": "5", "workers": "2"}, 2),
    ],
)
def test_a_job_has_no_more_processes_than_any_worker_has_slots(asked, most):
    found = settings.load({f"JAIL_{name}".upper(): value for name, value in asked.items()})
    assert found.processes == most
    shares = [settings.share(found, number) for number in range(found.workers)]
    assert {share.processes for share in shares} == {most}
    assert min(share.slots for share in shares) >= most


@pytest.mark.parametrize(("processors", "slots"), [(1, 2), (2, 2), (64, 64)])
def test_there_is_a_slot_for_each_processor_and_never_one_alone(monkeypatch, processors, slots):
    monkeypatch.setattr(host, "cpus", lambda: processors)
    assert settings.load({}).slots == slots


def test_a_file_sets_what_it_names(file):
    path = file('queue = 3\nallow_degraded = ["swap"]\n[defaults]\ncpus = 2\n')
    found = settings.load({}, path)
    assert (found.queue, found.allow_degraded) == (3, ("swap",))
    assert found.defaults == Limits(cpus=2.0)
    assert found.ceilings == CEILINGS


@pytest.mark.parametrize("by_file", [True, False])
def test_the_ceilings_that_are_not_set_are_those_of_an_operator_who_sets_none(file, by_file):
    path = file("[ceilings]\npids = 70\n") if by_file else None
    found = settings.load({} if by_file else {"JAIL_CEILINGS_PIDS": "70"}, path)
    assert found.ceilings == msgspec.structs.replace(CEILINGS, pids=70)


def test_the_file_can_be_named_by_a_variable(file):
    assert settings.load({"JAIL_CONFIG": file("queue = 3")}).queue == 3


def test_the_file_of_the_command_line_wins_over_the_variables(file, tmp_path):
    assert settings.load({"JAIL_CONFIG": str(tmp_path / "absent")}, file("queue = 3")).queue == 3


def test_a_variable_wins_over_the_file(file):
    path = file("queue = 3\n[defaults]\npids = 5\nopen_files = 70\n")
    found = settings.load({"JAIL_QUEUE": "4", "JAIL_DEFAULTS_PIDS": "6"}, path)
    assert (found.queue, found.defaults.pids, found.defaults.open_files) == (4, 6, 70)


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("JAIL_ADDRESS", "[::1]:80", "[::1]:80"),
        ("JAIL_KEYS_SHA256", f"{'0' * 64},{'f' * 64}", ("0" * 64, "f" * 64)),
        ("JAIL_WORKERS", "2", 2),
        ("JAIL_SLOTS", "3", 3),
        ("JAIL_MEMORY_BYTES", str(GIB), GIB),
        ("JAIL_READY_MIN", "5", 5),
        ("JAIL_READY_MAX", "5", 5),
        ("JAIL_READY_MEMORY_BYTES", "0", 0),
        ("JAIL_QUEUE", "0", 0),
        ("JAIL_BODY_BYTES", "1", 1),
        ("JAIL_DRAIN_MS", "0", 0),
        ("JAIL_EGRESS", "*.example.org:443/tcp,*:53/udp", ("*.example.org:443/tcp", "*:53/udp")),
        ("JAIL_EGRESS_PRIVATE", "10.1.0.0/16", ("10.1.0.0/16",)),
        ("JAIL_EGRESS_BYTES_PER_S", "10000", 10_000),
        ("JAIL_EGRESS_CONNECTIONS", "1", 1),
        ("JAIL_EGRESS_PROGRAM", "pasta", "pasta"),
        ("JAIL_POLICIES", "/p", "/p"),
        ("JAIL_STATE", "/s", "/s"),
        ("JAIL_ALLOW_DEGRADED", "landlock,swap", ("landlock", "swap")),
    ],
)
def test_every_setting_has_a_variable(variable, text, value):
    found = settings.load({variable: text})
    assert getattr(found, variable.removeprefix("JAIL_").lower()) == value


@pytest.mark.parametrize("table", ["defaults", "ceilings"])
@pytest.mark.parametrize("field", Limits.__struct_fields__)
def test_every_limit_has_a_variable(table, field):
    value = getattr(Limits(), field)
    found = settings.load({f"JAIL_{table}_{field}".upper(): str(value)})
    assert getattr(getattr(found, table), field) == value


@pytest.mark.parametrize(
    "name",
    ["JAIL_QUEU", "JAIL_queue", "JAIL_DEFAULTS", "JAIL_DEFAULTS_CPU", "JAIL_CEILING_PIDS", "JAIL_"],
)
def test_an_unknown_variable_is_refused_by_its_name(name):
    assert refusal({name: "1"}).startswith(f"{name} is not a setting")


def test_a_variable_of_somebody_else_is_not_looked_at():
    assert settings.load({"JAILHOUSE": "1", "_JAIL_IN_SCOPE": "1", "PATH": ""}).queue == 256


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("queu = 1", "queu"),
        ("[defaults]\ncpu = 1", "cpu"),
        ("queue = 1.5", "queue"),
        ('slots = "many"', "slots"),
        ("queue = [1]", "queue"),
        ('allow_degraded = "swap"', "allow_degraded"),
        ("defaults = 1", "defaults"),
        ("= 1", "line 1"),
    ],
)
def test_a_wrong_file_is_refused_with_its_path_and_the_place(file, text, named):
    path = file(text)
    message = refusal({}, path)
    assert message.startswith(path)
    assert named in message


def test_a_file_that_is_not_there_is_refused_by_its_path(tmp_path):
    path = str(tmp_path / "absent")
    assert refusal({"JAIL_CONFIG": path}).startswith(path)


def test_a_file_that_is_not_utf_8_is_refused_by_its_path(tmp_path):
    path = tmp_path / "jail.toml"
    path.write_bytes(b'state = "\xff"')
    assert refusal({}, str(path)).startswith(str(path))


def test_a_table_that_is_a_number_is_refused_with_a_variable_beside_it_too(file):
    path = file("defaults = 1")
    assert "defaults" in refusal({"JAIL_DEFAULTS_PIDS": "5"}, path)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("JAIL_QUEUE", "-1"),
        ("JAIL_WORKERS", "0"),
        ("JAIL_WORKERS", "-1"),
        ("JAIL_SLOTS", "-1"),
        ("JAIL_MEMORY_BYTES", "-1"),
        ("JAIL_BODY_BYTES", "-1"),
        ("JAIL_DRAIN_MS", "-1"),
        ("JAIL_QUEUE", "1.5"),
        ("JAIL_QUEUE", ""),
        ("JAIL_QUEUE", "many"),
        ("JAIL_QUEUE", "0x10"),
        ("JAIL_ALLOW_DEGRADED", "seccomp"),
        ("JAIL_ALLOW_DEGRADED", "landlock,all"),
    ],
)
def test_a_variable_out_of_range_is_refused_by_its_setting(variable, text):
    assert variable.removeprefix("JAIL_").lower() in refusal({variable: text})


@pytest.mark.parametrize(
    ("variable", "text", "named"),
    [
        ("JAIL_EGRESS", "example.org", "egress[0]"),
        ("JAIL_EGRESS", "example.org:1/tcp,127.1:1/tcp", "egress[1]"),
        ("JAIL_EGRESS_PRIVATE", "example.org", "egress_private[0]"),
        ("JAIL_EGRESS_PRIVATE", "10.0.0.0/8,127.0.0.1", "egress_private[1]"),
        ("JAIL_EGRESS_PRIVATE", "ff02::/16", "egress_private[0]"),
        ("JAIL_EGRESS_PRIVATE", "10.106.0.0/16", "egress_private[0]"),
        ("JAIL_EGRESS_BYTES_PER_S", "9999", "egress_bytes_per_s"),
        ("JAIL_EGRESS_BYTES_PER_S", "4000000001", "egress_bytes_per_s"),
        ("JAIL_EGRESS_CONNECTIONS", "0", "egress_connections"),
        ("JAIL_EGRESS_PROGRAM", "/bin/sh", "egress_program"),
    ],
)
def test_what_egress_cannot_be_is_refused_by_its_setting(variable, text, named):
    assert refusal({variable: text}).startswith(named)


def test_no_job_has_a_way_out_unless_the_operator_says_so():
    assert settings.load({}).egress == ()
    assert settings.load({}).egress_private == ()


@pytest.mark.parametrize("table", ["defaults", "ceilings"])
@pytest.mark.parametrize(
    ("field", "text"),
    [("pids", "1"), ("cpus", "nan"), ("cpu_ms", "-1")],
)
def test_a_limit_below_its_minimum_is_refused_by_its_setting(table, field, text):
    assert f"{table}.{field}" in refusal({f"JAIL_{table}_{field}".upper(): text})


def test_an_endless_ceiling_is_refused_by_its_setting():
    assert "ceilings.cpus" in refusal({"JAIL_CEILINGS_CPUS": "inf"})


def test_more_that_are_always_ready_than_ever_may_be_are_refused():
    told = refusal({"JAIL_READY_MIN": "5", "JAIL_READY_MAX": "4"})
    assert "ready_min = 5" in told
    assert "ready_max = 4" in told
    assert "raise the other" in told


@pytest.mark.parametrize(("most", "least"), [("0", 0), ("1", 1), ("4", 4), ("100", 4)])
def test_how_many_are_always_ready_follows_how_many_may_be_at_most(most, least):
    assert settings.load({"JAIL_READY_MAX": most}).ready_min == least


def test_a_wrong_number_of_those_that_may_be_ready_is_refused_by_its_own_name():
    with pytest.raises(SettingsError, match="ready_max = -1"):
        settings.load({"JAIL_READY_MAX": "-1"})


def test_a_default_above_its_ceiling_is_refused_by_its_setting():
    message = refusal({"JAIL_DEFAULTS_PIDS": "21", "JAIL_CEILINGS_PIDS": "20"})
    assert "defaults.pids" in message
    assert "20" in message


def test_a_job_can_never_ask_for_more_memory_than_there_is():
    found = settings.load({"JAIL_MEMORY_BYTES": str(GIB)})
    assert found.ceilings.memory_bytes == GIB


def test_a_lower_ceiling_of_memory_stays():
    found = settings.load({"JAIL_CEILINGS_MEMORY_BYTES": str(GIB)})
    assert found.ceilings.memory_bytes == GIB


def test_a_small_host_can_start_with_the_defaults(monkeypatch):
    monkeypatch.setattr(host, "memory_bytes", lambda: 512 * MIB)
    found = settings.load({})
    assert found.defaults.memory_bytes <= found.ceilings.memory_bytes == 384 * MIB


def test_the_state_directory_follows_the_environment_that_is_read():
    assert settings.load({"XDG_STATE_HOME": "/state"}).state == "/state/jail"


def test_images_are_kept_in_the_state_directory_or_where_the_operator_says():
    assert settings.load({"JAIL_STATE": "/state"}).images == "/state/images"
    assert settings.load({"JAIL_STATE": "/state", "JAIL_IMAGES": "/images"}).images == "/images"


def test_files_are_kept_in_the_state_directory_or_where_the_operator_says():
    assert settings.load({"JAIL_STATE": "/state"}).files == "/state/files"
    assert settings.load({"JAIL_STATE": "/state", "JAIL_FILES": "/files"}).files == "/files"


def test_a_file_may_have_something():
    assert "file_bytes = 0 is below 1" in refusal({"JAIL_FILE_BYTES": "0"})


@pytest.mark.parametrize("name", ["image_bytes", "image_entries"])
def test_an_image_may_have_something(name):
    assert f"{name} = 0 is below 1" in refusal({f"JAIL_{name.upper()}": "0"})


def test_the_state_directory_follows_the_environment_of_the_process(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert settings.load().state == "/state/jail"


@pytest.mark.parametrize("variable", ["JAIL_ALLOW_DEGRADED", "JAIL_KEYS_SHA256"])
def test_an_empty_variable_is_an_empty_list(variable):
    found = settings.load({variable: ""})
    assert getattr(found, variable.removeprefix("JAIL_").lower()) == ()


def test_the_number_of_workers_on_the_command_line_wins(file):
    assert settings.load({"JAIL_WORKERS": "3"}, file("workers = 4"), workers=2).workers == 2


def test_fewer_slots_than_workers_are_refused():
    assert "slots = 2 is below workers = 3" in refusal({"JAIL_WORKERS": "3", "JAIL_SLOTS": "2"})


def test_pinned_jobs_of_more_workers_than_processors_are_refused():
    assert settings.load({"JAIL_WORKERS": "6", "JAIL_PIN": "true"}).pin
    assert "workers = 7" in refusal({"JAIL_WORKERS": "7", "JAIL_PIN": "true"})


def test_every_worker_has_a_slot_on_a_host_with_fewer_processors():
    assert settings.load({"JAIL_WORKERS": "9"}).slots == 9


DIVIDED = ("slots", "memory_bytes", "ready_min", "ready_max", "ready_memory_bytes", "queue")


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("name", DIVIDED)
def test_workers_have_together_what_the_service_has(name, workers):
    whole = settings.load({"JAIL_WORKERS": str(workers), "JAIL_READY_MIN": "4", "JAIL_QUEUE": "7"})
    parts = [getattr(settings.share(whole, number), name) for number in range(workers)]
    assert sum(parts) == getattr(whole, name)
    assert max(parts) - min(parts) <= 1


def test_a_share_is_the_whole_in_all_that_is_not_divided():
    whole = settings.load({"JAIL_WORKERS": "2"})
    names = set(Settings.__struct_fields__) - set(DIVIDED)
    for name in names:
        assert getattr(settings.share(whole, 1), name) == getattr(whole, name)


def test_the_only_worker_has_everything():
    whole = settings.load({})
    assert settings.share(whole, 0) == whole


@pytest.mark.parametrize("number", range(3))
def test_every_share_of_a_service_has_a_slot_and_keeps_no_fewer_ready_than_it_must(number):
    text = {"JAIL_WORKERS": "3", "JAIL_SLOTS": "3", "JAIL_READY_MIN": "4", "JAIL_READY_MAX": "4"}
    found = settings.share(settings.load(text), number)
    assert found.slots == 1
    assert found.ready_min == found.ready_max


@pytest.mark.parametrize("number", range(3))
def test_a_job_can_ask_for_all_of_a_share_whichever_worker_takes_it(number):
    whole = settings.load({"JAIL_WORKERS": "3", "JAIL_MEMORY_BYTES": str(GIB)})
    found = settings.share(whole, number)
    assert found.memory_bytes == found.ceilings.memory_bytes == whole.ceilings.memory_bytes == GIB // 3


def test_workers_without_memory_for_a_job_are_refused():
    assert "memory_bytes" in refusal({"JAIL_WORKERS": "4", "JAIL_MEMORY_BYTES": str(4 * MIB)})


@pytest.mark.parametrize("key", ["secret", "0" * 63, "g" * 64, "é" * 64], ids=range(4))
def test_a_key_that_is_no_digest_is_refused(key):
    assert "keys_sha256" in refusal({"JAIL_KEYS_SHA256": key})


def mentions(text, name):
    return re.search(rf"\b{name}\b", text)


@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_every_setting_is_documented_by_its_name(name):
    assert mentions(Settings.__doc__, name)


def test_every_setting_has_a_default():
    assert all(
        field.default is not msgspec.NODEFAULT or field.default_factory is not msgspec.NODEFAULT
        for field in msgspec.structs.fields(Settings)
    )


@pytest.mark.parametrize("name", settings.DEGRADABLE)
def test_every_weakness_that_can_be_accepted_is_told(name):
    assert name in settings.load({"JAIL_ALLOW_DEGRADED": name}).allow_degraded
