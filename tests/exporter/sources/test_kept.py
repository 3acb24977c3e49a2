"""What is kept is given until its files change or it is old."""

import itertools
import os
from pathlib import Path

import pytest

from narthex_exporter.sources.kept import Kept, stamp


def test_an_answer_is_kept_until_a_file_changes(tmp_path: Path) -> None:
    path, absent = tmp_path / "a", tmp_path / "absent"
    path.write_text("a")
    kept, numbers = Kept[int](), itertools.count()

    def get() -> int:
        return kept.get(stamp((path, absent)), lambda: next(numbers))

    assert [get(), get()] == [0, 0]
    os.utime(path, (1, 1))
    assert get() == 1
    absent.touch()
    assert get() == 2
    path.unlink()
    assert [get(), get()] == [3, 3]


def test_an_answer_grows_old() -> None:
    now = 0.0
    kept, numbers = Kept[int](10.0, clock=lambda: now), itertools.count()
    assert kept.get((None,), lambda: next(numbers)) == 0
    now = 9.0
    assert kept.get((None,), lambda: next(numbers)) == 0
    now = 10.0
    assert kept.get((None,), lambda: next(numbers)) == 1


def test_what_fails_is_tried_again() -> None:
    kept = Kept[int]()
    with pytest.raises(ZeroDivisionError):
        kept.get((), lambda: 1 // 0)
    assert kept.get((), lambda: 7) == 7
