"""A file that is written appears whole; what stood there stays until then."""

from pathlib import Path

import pytest

from alignment.whole_file import WriteError, whole_file


def test_what_was_there_stays_until_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kept.txt"
    with whole_file(path) as file:
        file.write_text("old")
    with whole_file(path) as file:
        file.write_text("new")
        assert (file.name, path.read_text()) == ("kept.txt", "old")
    assert path.read_text() == "new"
    assert [*path.parent.iterdir()] == [path]


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old")

    def interrupted() -> None:
        with whole_file(path) as file:
            file.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "kept.txt"
    with pytest.raises(WriteError) as found, whole_file(path):
        pass
    assert str(found.value) == f"{path}: cannot be written: Not a directory"
