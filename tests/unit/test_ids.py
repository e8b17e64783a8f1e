"""Blocks of subordinate ids: no two services have one in common."""

import pytest

from jail.errors import HostError
from jail.ids import BLOCK_SLOTS, IdBlocks


def test_one_block_is_enough_for_as_many_as_it_has(tmp_path):
    blocks = IdBlocks(tmp_path, available=1000, wanted=BLOCK_SLOTS)

    assert blocks.slots == list(range(BLOCK_SLOTS))
    blocks.close()


def test_two_services_have_no_id_in_common(tmp_path):
    one, other = (IdBlocks(tmp_path, available=1000, wanted=BLOCK_SLOTS + 1) for _ in range(2))

    assert len(one.slots) == len(other.slots) == 2 * BLOCK_SLOTS
    assert not set(one.slots) & set(other.slots)
    one.close()
    other.close()


def test_what_is_given_back_can_be_taken(tmp_path):
    first = IdBlocks(tmp_path, available=1000, wanted=1)
    taken = first.slots
    first.close()
    second = IdBlocks(tmp_path, available=1000, wanted=1)

    assert second.slots == taken
    second.close()


def test_a_range_that_is_all_taken_is_told_with_its_cure_and_nothing_stays_locked(tmp_path):
    whole = IdBlocks(tmp_path, available=2 * BLOCK_SLOTS, wanted=BLOCK_SLOTS)

    with pytest.raises(HostError, match="--add-subuids"):
        IdBlocks(tmp_path, available=2 * BLOCK_SLOTS, wanted=2 * BLOCK_SLOTS)
    rest = IdBlocks(tmp_path, available=2 * BLOCK_SLOTS, wanted=BLOCK_SLOTS)
    assert not set(whole.slots) & set(rest.slots)
    whole.close()
    rest.close()


def test_ids_beyond_the_range_are_not_handed_out(tmp_path):
    with pytest.raises(HostError):
        IdBlocks(tmp_path, available=BLOCK_SLOTS - 1, wanted=1)
