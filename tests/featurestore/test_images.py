import hashlib
import os
from pathlib import Path

import pytest

from featurestore import images
from featurestore.errors import NotFound
from featurestore.tables import Tables


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path / "tables")


def put(tables: Tables, file: Path, original: bytes | None = None) -> str:
    data = file.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    row: dict[str, object] = {
        "sha256": sha256,
        "root": str(file.parent),
        "path": file.name,
        "format": "PNG",
        "mode": "RGB",
        "width": 1,
        "height": 1,
        "frames": 1,
        "bytes": len(data),
        "mtime_ns": file.stat().st_mtime_ns,
        "thumbnail": b"small " + data,
        "original": original,
    }
    images.upsert_images(tables, [row])
    return sha256


def test_a_picture_is_read_back_from_its_file(tables: Tables, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    sha256 = put(tables, file)
    assert images.open_bytes(tables, sha256) == b"one"
    assert images.thumbnail(tables, sha256) == b"small one"
    assert images.thumbnails(tables, [sha256, "0" * 64]) == {sha256: b"small one"}


def test_a_touched_file_is_hashed_again_and_still_good(tables: Tables, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    sha256 = put(tables, file)
    os.utime(file, ns=(1, 1))
    assert images.Originals(tables).open_bytes(sha256) == b"one"


@pytest.mark.parametrize("content", [b"two", b"longer", b"on"])
def test_a_file_that_became_another_picture_is_refused(
    tables: Tables, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    sha256 = put(tables, file)
    file.write_bytes(content)
    os.utime(file, ns=(1, 1))
    with pytest.raises(images.ImageUnavailable) as caught:
        images.open_bytes(tables, sha256)
    assert caught.value.code == "image_changed"


def test_a_file_that_is_gone_is_refused_and_a_kept_original_is_not(tables: Tables, tmp_path: Path) -> None:
    lost, kept = tmp_path / "a.png", tmp_path / "b.png"
    lost.write_bytes(b"one")
    kept.write_bytes(b"two")
    lost_sha, kept_sha = put(tables, lost), put(tables, kept, original=b"two")
    lost.unlink()
    kept.unlink()
    originals = images.Originals(tables)
    with pytest.raises(images.ImageUnavailable) as caught:
        originals.open_bytes(lost_sha)
    assert caught.value.code == "image_gone"
    assert originals.open_bytes(kept_sha) == b"two"


def test_a_picture_the_store_never_saw_is_not_found(tables: Tables) -> None:
    with pytest.raises(NotFound, match="no picture"):
        images.open_bytes(tables, "0" * 64)
    assert images.thumbnail(tables, "' OR 1=1 --") is None


def test_a_path_is_known_by_what_it_held_last(tables: Tables, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    first = put(tables, file)
    file.write_bytes(b"two")
    second = put(tables, file)
    assert images.known(tables)[(str(tmp_path), "a.png")].sha256 == second
    assert set(images.by_sha256(tables)) == {first, second}


def test_the_cached_reader_sees_pictures_that_come_later(tables: Tables, tmp_path: Path) -> None:
    one, two = tmp_path / "1.png", tmp_path / "2.png"
    one.write_bytes(b"one")
    assert images.open_bytes(tables, put(tables, one)) == b"one"
    two.write_bytes(b"two")
    assert images.open_bytes(tables, put(tables, two)) == b"two"
