"""Locks on directories."""

import os

from jail.locks import held, lock, try_lock


def test_a_lock_is_had_by_one_at_a_time(tmp_path):
    first = lock(tmp_path)

    assert try_lock(tmp_path) is None
    os.close(first)
    second = try_lock(tmp_path)
    assert second is not None
    os.close(second)


def test_what_is_gone_cannot_be_locked(tmp_path):
    assert try_lock(tmp_path / "gone") is None


def test_a_block_holds_the_lock_for_its_length(tmp_path):
    with held(tmp_path):
        assert try_lock(tmp_path) is None
    after = try_lock(tmp_path)
    assert after is not None
    os.close(after)
