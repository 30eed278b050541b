from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from featurestore import files, identity, journal
from featurestore.errors import DiskError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    files.write_text(path, "old")

    def fail_half_way() -> None:
        with files.replacing(path) as aside:
            aside.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_text() == "old"
    files.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"], "nothing is left beside it"


def test_a_full_disk_is_said_so_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="the disk is full") as refused:
        files.write_json(path, {"a": 2})
    assert "free some space" in (refused.value.remedy or "")
    assert refused.value.errno == errno.ENOSPC, "also for those who ask for the system's error"
    assert files.read_json(path) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(FileNotFoundError), files.disk_errors("a file"):
        raise FileNotFoundError(errno.ENOENT, "gone")
    with pytest.raises(RuntimeError, match="our own"), files.disk_errors("a file"):
        raise RuntimeError("our own bug")


def test_json_keeps_unicode_and_refuses_nan_where_hashes_are_taken(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"ä": "🎈"})
    assert "🎈" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert files.canonical_json({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    with pytest.raises(ValueError, match="JSON compliant"):
        files.canonical_json(float("nan"))


def test_a_folders_hash_follows_names_and_contents_but_not_hidden_files_or_where_it_stands(
    tmp_path: Path,
) -> None:
    def folder(name: str, contents: dict[str, bytes]) -> str:
        for file, data in contents.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return files.sha256_folder(tmp_path / name)

    one = folder("one", {"a": b"1", "sub/b": b"2"})
    assert folder("two", {"sub/b": b"2", "a": b"1", ".git/x": b"3", "sub/.y": b"4"}) == one
    others = [{"a": b"1", "b": b"2"}, {"a": b"12", "sub/b": b""}, {"a": b"1"}, {"a": b"1", "sub/b": b"3"}]
    hashes = {folder(f"other{n}", contents) for n, contents in enumerate(others)}
    assert len(hashes | {one}) == 5


def test_a_files_hash_is_the_hash_of_all_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("some text")
    monkeypatch.setattr(files, "CHUNK", 4)
    assert files.sha256_file(tmp_path / "a") == files.sha256_text("some text")


# ---- the journal


def test_a_journal_gives_back_what_was_recorded_oldest_first(tmp_path: Path) -> None:
    assert journal.read(tmp_path) == []
    journal.record(tmp_path, "ingest", items=3, note="line\u2028end\nä")
    journal.record(tmp_path, "publish", path=tmp_path)
    first, second = journal.read(tmp_path)
    assert (first["verb"], first["items"], first["note"]) == ("ingest", 3, "line\u2028end\nä")
    assert (second["verb"], second["path"]) == ("publish", str(tmp_path))


def test_every_line_of_the_journal_says_who_wrote_it(tmp_path: Path) -> None:
    journal.record(tmp_path, "ingest")
    by = journal.read(tmp_path)[0]["by"]
    assert by["pid"] == os.getpid()
    assert by["who"] == f"{identity.user()}@{identity.host()}"
    assert by["dualview"] == identity.version() != ""


def test_a_line_cut_short_by_a_crash_takes_no_other_with_it(tmp_path: Path) -> None:
    journal.record(tmp_path, "ingest")
    line = json.dumps({"verb": "torn ä"}, ensure_ascii=False).encode()
    with (tmp_path / journal.FILE).open("ab") as file:
        file.write(line[:-3])  # ends inside a character
    assert [entry["verb"] for entry in journal.read(tmp_path)] == ["ingest"]
    journal.record(tmp_path, "publish")
    assert [entry["verb"] for entry in journal.read(tmp_path)] == ["ingest", "publish"]
