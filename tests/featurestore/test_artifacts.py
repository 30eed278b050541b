from __future__ import annotations

import os
from pathlib import Path

import pytest

from featurestore import files
from featurestore.artifacts import Artifacts
from featurestore.errors import NotFound


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts")


def test_an_artifact_is_read_back_under_the_hash_of_its_content(artifacts: Artifacts) -> None:
    sha256 = artifacts.put({"words.json": b"[]", "parts/weights.npy": b"\x00"})
    assert artifacts.has(sha256)
    assert (artifacts.path(sha256) / "words.json").read_bytes() == b"[]"
    assert (artifacts.path(sha256) / "parts" / "weights.npy").read_bytes() == b"\x00"
    assert artifacts.verify(sha256)


def test_equal_content_is_kept_once_and_other_content_or_names_apart(artifacts: Artifacts) -> None:
    sha256 = artifacts.put({"a.txt": b"1", "b.txt": b"2"})
    assert artifacts.put({"b.txt": b"2", "a.txt": b"1"}) == sha256
    others = {
        artifacts.put({"a.txt": b"1"}),
        artifacts.put({"a.txt": b"2"}),
        artifacts.put({"a.txt": b"2", "b.txt": b"1"}),
        artifacts.put({"c.txt": b"1", "b.txt": b"2"}),
    }
    assert len(others | {sha256}) == 5


def test_the_hash_is_stable(artifacts: Artifacts) -> None:
    assert (
        artifacts.put({"words.json": b"[]"})
        == "4a1d91ef4bed5d625d37a789ba17599fdd7ca3ab2fa683751612ca9733e44818"
    )


@pytest.mark.parametrize("name", ["../escape.txt", "/tmp/escape.txt", "a/../../escape.txt", ".", ""])
def test_a_file_outside_its_artifact_is_refused(artifacts: Artifacts, name: str) -> None:
    with pytest.raises(ValueError, match="outside"):
        artifacts.put({name: b"x"})
    assert list(artifacts.folder.parent.rglob("escape.txt")) == []


@pytest.mark.parametrize(
    "name", ["model.pkl", "model.PICKLE", "sub/model.joblib", "pytorch_model.pt", ".hidden"]
)
def test_pickles_and_hidden_files_are_refused_and_leave_nothing(artifacts: Artifacts, name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        artifacts.put({"fine.txt": b"1", name: b"x"})
    assert list(artifacts.folder.iterdir()) == []


def test_nothing_at_all_is_no_artifact(artifacts: Artifacts) -> None:
    with pytest.raises(ValueError, match="at least one file"):
        artifacts.put({})


def test_a_missing_artifact_says_what_to_do(artifacts: Artifacts) -> None:
    assert not artifacts.has("0" * 64)
    with pytest.raises(NotFound, match="000000000000") as missing:
        artifacts.path("0" * 64)
    assert "--refit" in (missing.value.remedy or "")


@pytest.mark.parametrize("sha256", ["../../etc", "", "0" * 63, "G" * 64, "/" + "0" * 63])
def test_what_is_no_hash_is_no_path(artifacts: Artifacts, sha256: str) -> None:
    with pytest.raises(ValueError, match="is no sha256"):
        artifacts.path(sha256)


def test_an_interrupted_write_leaves_nothing(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        artifacts.put({"a.txt": b"1"})
    assert [p for p in artifacts.folder.rglob("*") if p.is_file()] == []


def test_a_damaged_artifact_is_seen_and_mended_by_putting_it_again(artifacts: Artifacts) -> None:
    sha256 = artifacts.put({"a.txt": b"1"})
    (artifacts.path(sha256) / "a.txt").write_bytes(b"2")
    assert not artifacts.verify(sha256)
    assert artifacts.put({"a.txt": b"1"}) == sha256
    assert artifacts.verify(sha256)
    assert files.sha256_folder(artifacts.path(sha256)) == sha256
