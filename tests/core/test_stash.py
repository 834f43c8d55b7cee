"""The typed storage that plugins hang on things."""

from __future__ import annotations

import gc
import weakref

import pytest

from pyroplug.core.stash import Stash, StashKey


def test_a_value_is_kept_under_its_key() -> None:
    stash, number, text = Stash(), StashKey[int](), StashKey[str]()
    stash[number] = 1
    stash[text] = "one"
    assert (stash[number], stash[text]) == (1, "one")
    assert number in stash
    assert len(stash) == 2
    stash[number] = 2
    assert stash[number] == 2


def test_keys_are_told_apart_by_identity() -> None:
    stash, one, other = Stash(), StashKey[int](), StashKey[int]()
    stash[one] = 1
    assert other not in stash
    with pytest.raises(KeyError):
        _ = stash[other]


def test_missing_values_have_defaults() -> None:
    stash, key = Stash(), StashKey[int]()
    assert stash.get(key, None) is None
    assert stash.get(key, 7) == 7
    assert stash.pop(key, 8) == 8
    assert len(stash) == 0


def test_setdefault_keeps_what_is_there() -> None:
    stash, key = Stash(), StashKey[list[int]]()
    first: list[int] = []
    assert stash.setdefault(key, first) is first
    assert stash.setdefault(key, [1]) is first


def test_pop_removes() -> None:
    stash, key = Stash(), StashKey[int]()
    stash[key] = 1
    assert stash.pop(key, None) == 1
    assert key not in stash


def test_values_that_are_false_are_values() -> None:
    stash, key = Stash(), StashKey["int | None"]()
    stash[key] = None
    assert key in stash
    assert stash.get(key, 5) is None
    assert stash.setdefault(key, 5) is None


def test_a_stash_lets_go_of_its_values() -> None:
    class Thing:
        pass

    stash, key = Stash(), StashKey[Thing]()
    stash[key] = Thing()
    reference = weakref.ref(stash[key])
    del stash
    gc.collect()
    assert reference() is None
