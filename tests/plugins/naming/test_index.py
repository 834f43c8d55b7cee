"""The index of names finds what a plain search through all of them would find."""

from __future__ import annotations

import random

import pytest

from pyroplug.plugins.naming.index import Index
from pyroplug.plugins.naming.records import Changes, Lease, Record

LAST = chr(0x10FFFF)


@pytest.mark.feature("F275")
@pytest.mark.parametrize("seed", range(5))
def test_after_any_changes(seed: int) -> None:
    numbers = random.Random(seed)
    index, model, now = Index({}), dict[str, Record](), 0.0
    for _ in range(300):
        now += 1
        changes: Changes = {}
        for _ in range(numbers.choice((1, 1, 3, 200))):
            name = f"{numbers.choice('abc')}.{numbers.randrange(300)}"
            tags = frozenset(numbers.sample("xyz", numbers.randrange(4)))
            lease = Lease("owner", 5.0, now + numbers.randrange(9)) if numbers.random() < 0.3 else None
            changes[name] = Record(f"PYRO:o{numbers.random()}@h:1", tags, lease) if numbers.random() < 0.5 else None
        index.apply(changes)
        model.update({name: record for name, record in changes.items() if record is not None})
        for name in [name for name, record in changes.items() if record is None]:
            model.pop(name, None)
        if numbers.random() < 0.5:
            continue  # so that changes pile up between two questions
        living = {n: r for n, r in model.items() if r.lease is None or r.lease.expires > now}
        assert index.count(now) == len(living)
        assert index.everything(now) == living
        assert index.uris(now) == {name: record.uri for name, record in living.items()}
        assert index.some(model, now) == living
        assert set(index.expired(now)) == model.keys() - living.keys()
        for prefix in ("a", "b.1", "c.29", "d"):
            found = [name for name in index.with_prefix(prefix) if name in model]
            assert found == sorted(name for name in model if name.startswith(prefix))
        for wanted in (["x"], ["x", "y"], ["x", "y", "z"], ["nothing"], ["x", "nothing"]):
            assert index.with_all(wanted) == {name for name, record in model.items() if record.tags >= set(wanted)}
            assert index.with_any(wanted) == {name for name, record in model.items() if record.tags & set(wanted)}


def test_prefixes_at_the_end_of_all_characters() -> None:
    names = ["a", "a" + LAST, "a" + LAST + "b", LAST, LAST + LAST, "b"]
    index = Index({name: Record("PYRO:o@h:1") for name in names})
    for prefix in ("a", "a" + LAST, LAST, LAST + LAST, "b" + LAST):
        assert index.with_prefix(prefix) == sorted(name for name in names if name.startswith(prefix))
