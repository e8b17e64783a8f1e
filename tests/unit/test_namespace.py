"""The delegated range, as subuid(5) and subgid(5) tell it."""

import errno

import pytest

from jail import namespace
from jail.namespace import IDS_PER_SLOT, NOBODY, SANDBOX_IDS, OuterNamespace, delegated_range, image_id


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("jail:100000:65536\n", (100000, 65536)),
        ("999:100000:65536\n", (100000, 65536)),
        ("root:1:2\njail:100000:65536\nwww:165536:65536\n", (100000, 65536)),
        ("jail:100000:65536", (100000, 65536)),
        ("jail:100:10\njail:200000:20\njail:300:15\n", (200000, 20)),
        ("999:100:10\njail:200000:20\n", (200000, 20)),
        ("jailer:100000:65536\n", None),
        ("9999:100000:65536\n", None),
        ("jail\n", None),
        ("jail:\n", None),
        ("jail:1\n", None),
        ("jail:x:1\n", None),
        ("jail:1:x\n", None),
        ("jail:-1:1\n", None),
        ("jail:1:2:3\n", None),
        ("#jail:1:2\n\n", None),
        ("\n\njail:1:2\n", (1, 2)),
    ],
)
def test_the_range_of_a_user_is_the_longest_by_name_or_by_id(text, expected):
    assert delegated_range(text, "jail", 999) == expected


def test_no_two_slots_share_an_id_and_none_has_the_services_own():
    namespace = object.__new__(OuterNamespace)
    ids = [number for slot in range(100) for number in namespace.ids(slot)]
    assert len(set(ids)) == len(ids) == 100 * IDS_PER_SLOT
    assert 0 not in ids


def test_the_last_slot_of_a_range_is_within_it():
    namespace = object.__new__(OuterNamespace)
    length = 65536
    # Inside, the ids of the range are 1 to its length.
    assert max(namespace.ids(length // IDS_PER_SLOT - 1)) <= length


@pytest.mark.parametrize(
    ("number", "length", "expected"),
    [
        (0, 65536, 0),
        (0, 2, 0),
        (1, 65536, 16385),
        (1000, 65536, 17384),
        (49151, 65536, 65535),
        # The last is nobody's.
        (49152, 65536, None),
        (NOBODY, 65536, 65536),
        (49153, 65536, None),
        (65535, 65536, None),
        (NOBODY, 1 << 20, 81918),
        (NOBODY, 81918, 81918),
        (NOBODY, 81917, 81917),
        (100000, 1 << 20, 116384),
        (1, 16384, None),
        (NOBODY, 16384, None),
        (NOBODY, 16385, 16385),
        (1, 16385, None),
        (-1, 65536, None),
        (1 << 64, 65536, None),
    ],
)
def test_an_id_of_an_image_has_its_place_after_those_of_sandboxes(number, length, expected):
    assert image_id(number, length) == expected


@pytest.mark.parametrize("length", [2, 16383, 16384, 16385, 20000, 65536, 81917, 81918, 1 << 17])
def test_no_two_ids_of_images_are_one_and_none_is_a_sandboxs(length):
    numbers = {*range(0, min(length, 60000), 7), *range(length - SANDBOX_IDS - 5, length + 5), NOBODY}
    found = [place for number in numbers if number >= 0 and (place := image_id(number, length)) is not None]
    assert len(found) == len(set(found))
    assert all(place == 0 or SANDBOX_IDS < place <= length for place in found)
    last_slot = min(length, SANDBOX_IDS) // IDS_PER_SLOT - 1
    assert max(object.__new__(OuterNamespace).ids(last_slot)) <= SANDBOX_IDS


@pytest.mark.parametrize(
    ("error", "restricts", "cause"),
    [
        (errno.EPERM, True, "AppArmor"),
        (errno.EACCES, True, "AppArmor"),
        (errno.EROFS, True, "/proc/sys/user"),
        (errno.ENOSPC, True, "No space left"),
        (errno.EACCES, False, "A security module"),
        (errno.EPERM, False, "not permitted"),
    ],
)
def test_apparmor_is_blamed_for_no_more_than_it_does(monkeypatch, error, restricts, cause):
    """Ubuntu has the restriction: containers there lack the same as elsewhere."""
    monkeypatch.setattr(namespace, "_apparmor_restricts", lambda: restricts)
    assert cause in namespace._explain(error).cause
