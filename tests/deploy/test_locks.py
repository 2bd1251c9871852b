"""Locks: what they say, and whether two of them can be on together."""

import pytest

from deploy import locks
from deploy.locks import Conflict, Pin

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def test_a_lock_is_read_and_written_as_pip_has_it() -> None:
    text = (
        f"one==1.0 \\\n    --hash=sha256:{A} \\\n    --hash=sha256:{B}\n"
        f"two-birds==2.0a1 \\\n    --hash=sha256:{C}\n"
    )
    pins = locks.parse(text)
    assert pins == {"one": Pin("one", "1.0", (A, B)), "two-birds": Pin("two-birds", "2.0a1", (C,))}
    assert locks.text_of(reversed(pins.values())) == text
    assert locks.parse("") == {}


def test_names_are_compared_as_indexes_do_and_hashes_are_in_order() -> None:
    text = f"# by hand\nTwo_Birds==1.0 --hash=sha256:{B} --hash=sha256:{A} --hash=sha256:{B}\n"
    assert locks.parse(text)["two-birds"].hashes == (A, B)


def test_a_package_without_a_hash_is_no_lock() -> None:
    with pytest.raises(ValueError, match="two is locked without a hash"):
        locks.parse(f"one==1.0 --hash=sha256:{A}\ntwo==1.0\n")


def test_parts_are_merged_and_only_files_that_all_allow_remain() -> None:
    merged = locks.merge(
        {
            "Datasette 1": {"one": Pin("one", "1.0", (A, B))},
            "birds": {"one": Pin("one", "1.0", (B, C)), "two": Pin("two", "2", (C,))},
        }
    )
    assert merged == {"one": Pin("one", "1.0", (B,)), "two": Pin("two", "2", (C,))}


def test_a_conflict_names_both_plugins_the_package_and_both_versions() -> None:
    parts = {"birds": {"one": Pin("one", "1.0", (A,))}, "cats": {"one": Pin("one", "2.0", (B,))}}
    with pytest.raises(Conflict) as conflict:
        locks.merge(parts)
    assert str(conflict.value) == (
        "birds needs one 1.0, and cats needs one 2.0. They cannot be on together."
    )
    assert conflict.value.package == "one"


def test_the_same_version_as_other_files_is_a_conflict_too() -> None:
    parts = {"birds": {"one": Pin("one", "1.0", (A,))}, "cats": {"one": Pin("one", "1.0", (B,))}}
    with pytest.raises(Conflict, match=r"birds needs one 1\.0 \(other files\), and cats"):
        locks.merge(parts)
