import hashlib
import io
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from featurestore import images, interactions, quarantine
from featurestore.errors import BadInput, Conflict
from featurestore.interactions import EventChanges
from featurestore.items import ItemChanges, live
from featurestore.store import Store
from ingest.load import ImageCounts, ingest


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with three items, three pictures and four events."""
    folder = tmp_path / "shop"
    (folder / "images").mkdir(parents=True)
    for number, name in enumerate("abc"):
        picture(folder / "images" / f"{name}.png", number)
    write_items(folder)
    (folder / "events.csv").write_text(
        "user_id,item_id,timestamp,rating\nu,a,10,5\nu,b,20,\nv,c,15,1\nv,a,15,2\n"
    )
    return folder


def picture(path: Path, shade: int, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 24), (shade * 40 % 256, 100, 50)).save(out, kind)
    path.write_bytes(out.getvalue())
    return out.getvalue()


def write_items(folder: Path, **changes: str) -> Path:
    """items.csv with one line an item; a change of None leaves the item out."""
    rows = {
        name: f"{name},Title {name},{number}.5,images/{name}.png" for number, name in enumerate("abc")
    } | changes
    lines = ["item_id,title,price,image", *(row for row in rows.values() if row)]
    (folder / "items.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "items.csv"


def versions(store: Store) -> dict[str, int]:
    return {name: store.tables.version(name) for name in store.tables.names()}


def catalogue(store: Store, column: str) -> dict[str, Any]:
    rows = live(store.tables)
    return dict(zip(rows["item_id"].to_pylist(), rows[column].to_pylist(), strict=True))


def set_aside(store: Store) -> list[tuple[str, int, str, str]]:
    rows = quarantine.read(store.tables).to_pylist()
    return [(Path(row["source"]).name, row["line"], row["field"], row["code"]) for row in rows]


# ---- what an ingest does


def test_a_catalogue_and_a_log_are_stored_with_their_pictures(store: Store, shop: Path) -> None:
    report = ingest(store, shop / "items.csv", shop / "events.csv")
    assert report.items == ItemChanges(added=3)
    assert report.events == EventChanges(added=4)
    assert report.images == ImageCounts(items=3, new=3)
    assert report.quarantined == {}
    assert catalogue(store, "price") == {"a": 0.5, "b": 1.5, "c": 2.5}
    sha256 = hashlib.sha256((shop / "images" / "b.png").read_bytes()).hexdigest()
    assert catalogue(store, "_image_sha256")["b"] == sha256
    assert images.open_bytes(store.tables, sha256) == (shop / "images" / "b.png").read_bytes()
    assert Image.open(io.BytesIO(images.thumbnail(store.tables, sha256) or b"")).size == (32, 24)
    assert interactions.read_log(store.tables)["item_id"].to_pylist() == ["a", "b", "c", "a"]
    assert json.dumps(report.to_dict())


def test_the_same_sources_again_change_nothing_and_write_no_version(store: Store, shop: Path) -> None:
    write_items(shop, d="d,bad,price?,images/none.png", e="a,twice,1,")
    with (shop / "events.csv").open("a") as file:
        file.write("u,zz,1,\n")
    ingest(store, shop / "items.csv", shop / "events.csv")
    before = versions(store)
    assert set(before) == {"items", "images", "interactions", "quarantine"}
    report = ingest(store, shop / "items.csv", shop / "events.csv")
    assert not report.wrote
    assert report.items == ItemChanges(unchanged=4)
    assert report.events == EventChanges(unchanged=4)
    assert versions(store) == before


def test_edited_titles_change_exactly_those_rows(store: Store, shop: Path) -> None:
    ingest(store, shop / "items.csv")
    write_items(shop, b="b,Another title,1.5,images/b.png")
    assert ingest(store, shop / "items.csv").items == ItemChanges(changed=1, unchanged=2)
    assert catalogue(store, "title") == {"a": "Title a", "b": "Another title", "c": "Title c"}


def test_csv_jsonl_parquet_arrow_and_pandas_agree(tmp_path: Path, shop: Path) -> None:
    store = Store.create(tmp_path / "all", "")
    ingest(store, shop / "items.csv", images_root=shop)
    table = live(store.tables).select(["item_id", "title", "price", "image"])
    (shop / "i.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    pq.write_table(table, shop / "i.parquet")
    others = [
        shop / "i.jsonl",
        str(shop / "i.parquet"),
        table,
        table.to_pandas(),
        table.to_pandas(types_mapper=pd.ArrowDtype),
    ]
    for other in others:
        assert ingest(store, other, images_root=shop).items == ItemChanges(unchanged=3), other


def test_a_folder_of_pictures_is_a_catalogue(store: Store, shop: Path) -> None:
    (shop / "images" / "sub").mkdir()
    picture(shop / "images" / "sub" / "a.jpg", 9, "JPEG")
    report = ingest(store, shop / "images")
    assert report.items == ItemChanges(added=3)
    assert set_aside(store) == [("images", 4, "item_id", "duplicate_id")]
    assert catalogue(store, "image")["a"] == "a.png"


def test_a_later_source_adds_columns_and_keeps_the_others(store: Store, shop: Path) -> None:
    ingest(store, shop / "items.csv")
    report = ingest(store, pa.table({"item_id": ["a", "b"], "genres": [["x"], ["y", "z"]]}))
    assert report.items == ItemChanges(changed=2)
    assert report.images is None
    assert catalogue(store, "genres") == {"a": ["x"], "b": ["y", "z"], "c": None}
    assert catalogue(store, "image")["a"] == "images/a.png"
    assert catalogue(store, "_image_sha256")["a"] is not None


def test_types_hold_from_the_first_ingest_on_and_a_bad_value_keeps_the_stored_one(
    store: Store, shop: Path
) -> None:
    ingest(store, shop / "items.csv")
    path = write_items(shop, a="a,New title,cheap,images/a.png", d="d,Title d,dear,")
    report = ingest(store, path)
    assert report.items == ItemChanges(added=1, changed=1, unchanged=2)
    assert report.quarantined == {"bad_value": 2}
    assert catalogue(store, "price") == {"a": 0.5, "b": 1.5, "c": 2.5, "d": None}
    assert catalogue(store, "title")["a"] == "New title"
    assert set_aside(store) == [
        ("items.csv", 2, "price", "bad_value"),
        ("items.csv", 5, "price", "bad_value"),
    ]


def test_a_mended_source_leaves_the_quarantine(store: Store, shop: Path) -> None:
    ingest(store, write_items(shop, d="d,too,many,cells,here"))
    assert [entry[3] for entry in set_aside(store)] == ["column_count"]
    assert store.errors()[0].examples[0].place == f"{(shop / 'items.csv').resolve()}:5"
    ingest(store, write_items(shop, d="d,just,1,"))
    assert set_aside(store) == []


def test_a_mapping_file_renames_types_and_roots(store: Store, shop: Path) -> None:
    (shop / "m.toml").write_text(
        'images_root = "images"\nrename = { asin = "item_id" }\ndrop = ["note"]\n'
        '[columns.price]\ntype = "number"\n[columns.genres]\ntype = "list"\nseparator = "|"\n'
        '[interactions]\nrename = { who = "user_id" }\n[interactions.columns.timestamp]\nunit = "ms"\n'
    )
    (shop / "i.csv").write_text('asin,note,price,genres,image\n01,x,"$1,200.00",p|q,a.png\n02,y,soon,,\n')
    (shop / "e.csv").write_text("who,item_id,timestamp\nu,01,5000\n")
    report = ingest(store, shop / "i.csv", shop / "e.csv", mapping=shop / "m.toml")
    assert report.items == ItemChanges(added=2)
    assert report.quarantined == {"bad_value": 1}
    assert catalogue(store, "price") == {"01": 1200.0, "02": None}
    assert catalogue(store, "genres") == {"01": ["p", "q"], "02": None}
    assert interactions.read_log(store.tables)["timestamp"].to_pylist() == [5]
    with pytest.raises(BadInput, match="lists in the store"):
        ingest(store, pa.table({"item_id": ["01"], "genres": ["p|q"]}))


def test_a_stray_among_json_lists_keeps_the_stored_list(store: Store, shop: Path) -> None:
    rows = [{"item_id": f"i{n}", "labels": ["x", str(n)]} for n in range(20)]
    (shop / "i.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (shop / "m.toml").write_text('rename = { labels = "tags" }')
    ingest(store, shop / "i.jsonl", mapping=shop / "m.toml")
    rows[3]["labels"] = "torn"
    (shop / "i.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = ingest(store, shop / "i.jsonl", mapping=shop / "m.toml")
    assert report.items == ItemChanges(unchanged=20)
    assert report.quarantined == {"bad_value": 1}


# ---- items that leave


def test_items_that_left_are_tombstoned_only_on_request_and_come_back(store: Store, shop: Path) -> None:
    ingest(store, shop / "items.csv", shop / "events.csv")
    write_items(shop, b="")
    assert ingest(store, shop / "items.csv").items == ItemChanges(unchanged=2)
    assert ingest(store, shop / "items.csv", remove_missing=True).items == ItemChanges(unchanged=2, removed=1)
    assert set(catalogue(store, "title")) == {"a", "c"}
    again = ingest(store, interactions=shop / "events.csv")
    assert again.events == EventChanges(unchanged=4), "events of items that left are history, not errors"
    write_items(shop)
    assert ingest(store, shop / "items.csv", remove_missing=True).items == ItemChanges(unchanged=2, revived=1)


def test_a_source_without_a_valid_row_removes_nothing(store: Store, shop: Path) -> None:
    ingest(store, shop / "items.csv")
    before = versions(store)
    (shop / "items.csv").write_text("item_id,title\n,x\n,y\n")
    with pytest.raises(BadInput, match="no valid row"):
        ingest(store, shop / "items.csv", remove_missing=True)
    assert versions(store) == before
    assert ingest(store, shop / "items.csv").quarantined == {"missing_id": 2}


def test_while_some_ids_cannot_be_read_nothing_is_removed_and_the_report_says_so(
    store: Store, shop: Path
) -> None:
    ingest(store, shop / "items.csv")
    report = ingest(
        store, write_items(shop, b="b,torn row", a="a,Edited,0.5,images/a.png"), remove_missing=True
    )
    assert report.items == ItemChanges(changed=1, unchanged=1)
    assert "no item was removed" in report.notes[0]
    assert set(catalogue(store, "title")) == {"a", "b", "c"}


# ---- pictures


def test_bad_pictures_are_set_aside_and_their_items_kept(store: Store, shop: Path, tmp_path: Path) -> None:
    whole = picture(shop / "images" / "t.png", 7)
    (shop / "images" / "t.png").write_bytes(whole[: len(whole) // 2])
    (shop / "images" / "text.jpg").write_text("not a picture")
    picture(tmp_path / "secret.png", 8)
    (shop / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    bad = {
        "truncated": "images/t.png",
        "text": "images/text.jpg",
        "missing": "images/none.png",
        "climbs": "../secret.png",
        "absolute": str(tmp_path / "secret.png"),
        "link": "images/link.png",
        "url": "https://example.org/a.png",
        "a_folder": "images",
    }
    report = ingest(store, write_items(shop, **{name: f"{name},T,1,{path}" for name, path in bad.items()}))
    assert report.items == ItemChanges(added=3 + len(bad))
    assert report.images == ImageCounts(items=3, new=3, failed=len(bad))
    rows = quarantine.read(store.tables).to_pylist()
    assert {row["field"] for row in rows} == {"image"}
    codes = {json.loads(row["row"])["item_id"]: row["code"] for row in rows}
    assert codes.pop("truncated") in ("image_truncated", "image_undecodable")
    assert codes == {
        "text": "image_undecodable",
        "missing": "image_missing",
        "climbs": "image_path",
        "absolute": "image_path",
        "link": "image_path",
        "url": "image_url",
        "a_folder": "image_missing",
    }
    assert all(catalogue(store, "image")[name] is None for name in bad)
    assert store.tables.count("images") == 3


def test_an_item_keeps_the_good_picture_it_had(store: Store, shop: Path) -> None:
    ingest(store, shop / "items.csv", keep_images=True)
    had = catalogue(store, "_image_sha256")
    (shop / "images" / "a.png").write_bytes(b"damaged")
    (shop / "images" / "b.png").unlink()
    report = ingest(store, write_items(shop, c="c,Title c,2.5,../elsewhere.png"))
    assert report.images == ImageCounts(failed=3)
    assert report.items == ItemChanges(unchanged=3)
    assert catalogue(store, "_image_sha256") == had
    assert catalogue(store, "image")["c"] == "images/c.png"
    assert images.open_bytes(store.tables, had["b"])[:4] == b"\x89PNG"


def test_an_emptied_image_cell_takes_the_picture_off_the_item(store: Store, shop: Path) -> None:
    ingest(store, shop / "items.csv")
    assert ingest(store, write_items(shop, a="a,Title a,0.5,")).items == ItemChanges(changed=1, unchanged=2)
    assert catalogue(store, "_image_sha256")["a"] is None
    assert store.tables.count("images") == 3, "the picture itself stays"


def test_a_replaced_picture_changes_its_item_and_only_it(store: Store, shop: Path) -> None:
    ingest(store, shop / "items.csv")
    had = catalogue(store, "_image_sha256")
    picture(shop / "images" / "b.png", 99)
    report = ingest(store, shop / "items.csv")
    assert report.items == ItemChanges(changed=1, unchanged=2)
    assert report.images == ImageCounts(items=3, new=1)
    now = catalogue(store, "_image_sha256")
    assert [name for name in had if had[name] != now[name]] == ["b"]
    picture(shop / "images" / "b.png", 1)
    assert ingest(store, shop / "items.csv").images == ImageCounts(items=3), "the old content is known"
    assert catalogue(store, "_image_sha256") == had
    images.open_bytes(store.tables, had["b"])


def test_files_of_known_size_and_time_are_not_read_again(
    store: Store, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: str) -> tuple[bytes, int]:
        read.append(Path(path).name)
        return real(path)

    from ingest import shelve

    real = shelve.read_file
    monkeypatch.setattr(shelve, "read_file", counted)
    ingest(store, shop / "items.csv")
    assert sorted(read) == ["a.png", "b.png", "c.png"]
    read.clear()
    ingest(store, shop / "items.csv")
    assert read == []
    os.utime(shop / "images" / "b.png", ns=(5, 5))
    assert ingest(store, shop / "items.csv").items == ItemChanges(unchanged=3)
    assert read == ["b.png"]
    read.clear()
    ingest(store, shop / "items.csv")
    assert read == [], "the new time is remembered"


def test_two_items_may_share_a_picture_under_two_names(store: Store, shop: Path) -> None:
    (shop / "images" / "b.png").write_bytes((shop / "images" / "a.png").read_bytes())
    report = ingest(store, shop / "items.csv")
    assert report.images == ImageCounts(items=3, new=2)
    before = versions(store)
    assert ingest(store, shop / "items.csv").items == ItemChanges(unchanged=3)
    assert versions(store) == before


def test_a_picture_whose_file_holds_another_now_is_read_where_it_still_is(store: Store, shop: Path) -> None:
    shared = (shop / "images" / "a.png").read_bytes()
    (shop / "images" / "b.png").write_bytes(shared)
    ingest(store, shop / "items.csv")
    picture(shop / "images" / "a.png", 5)
    ingest(store, shop / "items.csv")
    rows = {row["item_id"]: row["_image_sha256"] for row in live(store.tables).to_pylist()}
    assert rows["b"] == hashlib.sha256(shared).hexdigest() != rows["a"]
    assert images.Originals(store.tables).open_bytes(rows["b"]) == shared


def test_a_name_that_is_spelled_in_other_letters_is_the_column_that_there_is(
    store: Store, tmp_path: Path
) -> None:
    def items(header: str, *rows: str) -> None:
        ingest(store, text(tmp_path, "\n".join([header, *rows]) + "\n"))

    items("Item_ID,Title,Brand", "a,shoe,Runwell", "b,mug,Cuppa")
    items("item_id,TITLE,brand", "a,shoe,Other")
    found = {row["item_id"]: row for row in live(store.tables).to_pylist()}
    assert (found["a"]["title"], found["a"]["Brand"], found["b"]["Brand"]) == ("shoe", "Other", "Cuppa")
    assert "brand" not in found["a"]
    events = text(tmp_path, "User_id,ITEM_ID,Timestamp\nu,a,10\n", "log.csv")
    report = ingest(store, interactions=events)
    assert report.events is not None
    assert report.events.added == 1


def test_a_catalogue_that_moved_is_found_at_its_new_place(store: Store, shop: Path) -> None:
    ingest(store, shop / "items.csv")
    moved = shop.rename(shop.with_name("moved"))
    report = ingest(store, moved / "items.csv")
    assert report.items == ItemChanges(unchanged=3)
    assert report.images == ImageCounts(items=3)
    sha256 = catalogue(store, "_image_sha256")["a"]
    assert images.open_bytes(store.tables, sha256) == (moved / "images" / "a.png").read_bytes()


def test_originals_are_kept_on_request_even_of_pictures_that_are_known(store: Store, shop: Path) -> None:
    ingest(store, shop / "items.csv")
    assert images.kept(store.tables) == set()
    ingest(store, shop / "items.csv", keep_images=True)
    sha256s = set(catalogue(store, "_image_sha256").values())
    assert images.kept(store.tables) == sha256s
    before = versions(store)
    ingest(store, shop / "items.csv", keep_images=True)
    assert versions(store) == before
    for path in (shop / "images").iterdir():
        path.unlink()
    assert all(images.thumbnail(store.tables, sha) for sha in sha256s)
    assert all(images.open_bytes(store.tables, sha)[:4] == b"\x89PNG" for sha in sha256s)


def test_many_pictures_are_committed_in_batches(
    store: Store, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingest import shelve

    monkeypatch.setattr(shelve, "COMMIT_ROWS", 10)
    rows = {}
    for number in range(35):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(shop / "images" / f"n{number}.png")
        rows[f"n{number}"] = f"n{number},T,1,images/n{number}.png"
    report = ingest(store, write_items(shop, **rows))
    assert report.images == ImageCounts(items=38, new=38)
    assert store.tables.count("images") == 38
    assert None not in catalogue(store, "_image_sha256").values()


def test_a_bug_while_decoding_stops_the_ingest(
    store: Store, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingest import shelve

    def broken(data: bytes) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(shelve, "facts", broken)
    with pytest.raises(ZeroDivisionError):
        ingest(store, shop / "items.csv")
    assert not store.tables.exists("items")


# ---- the log


def test_bad_events_are_set_aside_with_their_lines(store: Store, shop: Path) -> None:
    (shop / "events.csv").write_text(
        "user_id,item_id,timestamp\nu,a,1\nu,nope,2\n,a,3\nu,b,never\nu,b\nu,c,4\n"
    )
    report = ingest(store, shop / "items.csv", shop / "events.csv")
    assert report.events == EventChanges(added=2)
    assert report.quarantined == {"bad_timestamp": 1, "column_count": 1, "missing_id": 1, "unknown_item": 1}
    assert [entry[1:] for entry in set_aside(store)] == [
        (3, "item_id", "unknown_item"),
        (4, "user_id", "missing_id"),
        (5, "timestamp", "bad_timestamp"),
        (6, None, "column_count"),
    ]


def test_an_event_of_an_item_that_comes_later_is_taken_then(store: Store, shop: Path) -> None:
    (shop / "events.csv").write_text("user_id,item_id\nu,a\nu,new\nu,b\n")
    ingest(store, shop / "items.csv", shop / "events.csv")
    ingest(store, write_items(shop, new="new,New,1,"))
    assert ingest(store, interactions=shop / "events.csv").events == EventChanges(added=1, unchanged=2)
    assert set_aside(store) == []
    log = interactions.read_log(store.tables)
    assert list(zip(log["item_id"].to_pylist(), log["position"].to_pylist(), strict=True)) == [
        ("a", 0),
        ("new", 1),
        ("b", 2),
    ]


def test_unsorted_and_tied_times_and_a_user_with_one_event_are_ordinary(store: Store, shop: Path) -> None:
    (shop / "events.csv").write_text("user_id,item_id,timestamp\nu,b,9\nu,a,1\nu,c,9\nu,a,9\nlone,a,5\n")
    assert ingest(store, shop / "items.csv", shop / "events.csv").events == EventChanges(added=5)
    assert interactions.read_log(store.tables)["item_id"].to_pylist() == ["a", "a", "b", "c", "a"]


def test_the_log_is_replaced_only_by_one_that_has_events(store: Store, shop: Path) -> None:
    ingest(store, shop / "items.csv", shop / "events.csv")
    (shop / "new.csv").write_text("user_id,item_id,timestamp\nu,a,10\nw,b,1\n")
    report = ingest(store, interactions=shop / "new.csv", replace_interactions=True)
    assert report.events == EventChanges(added=1, changed=1, removed=3)
    assert interactions.read_log(store.tables).num_rows == 2
    (shop / "new.csv").write_text("user_id,item_id,timestamp\nu,zz,10\n")
    with pytest.raises(BadInput, match="would empty the log"):
        ingest(store, interactions=shop / "new.csv", replace_interactions=True)
    assert interactions.read_log(store.tables).num_rows == 2


def test_a_log_without_time_is_taken_in_its_order_and_the_report_says_so(store: Store, shop: Path) -> None:
    (shop / "events.csv").write_text("user_id,item_id\nu,c\nv,a\nu,a\n")
    assert "neither timestamp nor position" in ingest(store, shop / "items.csv", shop / "events.csv").notes[0]
    assert interactions.read_log(store.tables)["item_id"].to_pylist() == ["c", "a", "a"]


def test_columns_that_a_log_does_not_keep_are_reported(store: Store, shop: Path) -> None:
    (shop / "events.csv").write_text("user_id,item_id,timestamp,device\nu,a,10,phone\n")
    assert "device" in ingest(store, shop / "items.csv", shop / "events.csv").notes[0]


# ---- refused calls leave the store as it was

REFUSED: dict[str, tuple[Callable[[Store, Path], Any], str]] = {
    "nothing": (lambda s, f: ingest(s), "nothing to ingest"),
    "no such file": (lambda s, f: ingest(s, f / "none.csv"), "no file"),
    "a URL": (lambda s, f: ingest(s, "https://example.org/items.csv"), "URL"),
    "a header without rows": (lambda s, f: ingest(s, text(f, "item_id,title\n")), "no rows"),
    "no item_id": (lambda s, f: ingest(s, text(f, "id,title\n1,a\n")), "no column 'item_id'"),
    "another encoding": (lambda s, f: ingest(s, text(f, b"item_id\n\xff\n")), "line 2"),
    "no user_id": (
        lambda s, f: ingest(s, interactions=text(f, "item_id,timestamp\na,1\n")),
        "no column 'user_id'",
    ),
    "a bad mapping": (
        lambda s, f: ingest(s, f / "items.csv", mapping=text(f, "colums = 1", "m.toml")),
        "colums",
    ),
    "a mapping that names no column": (
        lambda s, f: ingest(s, f / "items.csv", mapping=text(f, 'drop = ["nope"]', "m.toml")),
        "'nope'",
    ),
    "a bad log beside a good catalogue": (
        lambda s, f: ingest(s, write_items(f, z="z,Z,1,"), text(f, "user_id,item_id\n")),
        "no rows",
    ),
    "no folder of images": (lambda s, f: ingest(s, f / "items.csv", images_root=f / "none"), "is no folder"),
    "images of a table without a root": (
        lambda s, f: ingest(s, pa.table({"item_id": ["z"], "image": ["a.png"]})),
        "images_root",
    ),
    "remove_missing without items": (
        lambda s, f: ingest(s, interactions=f / "events.csv", remove_missing=True),
        "remove_missing is about items",
    ),
    "keep_images without items": (
        lambda s, f: ingest(s, interactions=f / "events.csv", keep_images=True),
        "keep_images",
    ),
    "replacing by nothing": (
        lambda s, f: ingest(s, f / "items.csv", replace_interactions=True),
        "replace_interactions",
    ),
    "pictures of no items": (
        lambda s, f: ingest(s, interactions=f / "events.csv", images_root=f),
        "images: this is about items",
    ),
    "a mapping of no items": (
        lambda s, f: ingest(s, interactions=f / "events.csv", mapping=text(f, 'drop = ["zzz"]', "m.toml")),
        "drop: this is about items",
    ),
    "a dict": (lambda s, f: ingest(s, {"item_id": [1]}), "a dict"),
}


def text(folder: Path, content: str | bytes, name: str = "x.csv") -> Path:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_call_is_refused_with_a_remedy_and_nothing_is_written(
    store: Store, shop: Path, case: str
) -> None:
    ingest(store, shop / "items.csv", shop / "events.csv")
    before = versions(store)
    call, message = REFUSED[case]
    with pytest.raises(BadInput, match=message) as caught:
        call(store, shop)
    assert caught.value.remedy
    assert versions(store) == before


def test_a_log_before_any_catalogue_is_refused(store: Store, shop: Path) -> None:
    with pytest.raises(BadInput, match="no items"):
        ingest(store, interactions=shop / "events.csv")


def test_progress_is_told_and_ends_at_its_total(store: Store, shop: Path) -> None:
    told: list[tuple[int, int | None, str]] = []
    ingest(store, shop / "items.csv", shop / "events.csv", progress=lambda *step: told.append(step))
    assert (3, 3, "pictures") in told
    assert [step[2] for step in told if step[0] == step[1]] == ["pictures", "writing items", "writing events"]


# ---- two writers, and kills


def _hold(root: Path, held: Any, free: Any) -> None:
    with Store.open(root).lock("materialize"):
        held.set()
        free.wait(30)


def test_a_second_writer_is_refused_by_name_or_waits(store: Store, shop: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, free = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(store.root, held, free))
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(Conflict, match="materialize"):
            ingest(store, shop / "items.csv")
        free.set()
        assert ingest(store, shop / "items.csv", wait=30).items == ItemChanges(added=3)
    finally:
        free.set()
        other.join(30)


def _ingest_all(root: Path, shop: Path) -> None:
    ingest(Store.open(root), shop / "items.csv", shop / "many.csv", replace_interactions=True)


def test_a_killed_ingest_leaves_whole_tables_and_the_next_one_completes_it(store: Store, shop: Path) -> None:
    ingest(store, shop / "items.csv", shop / "events.csv")
    rows = [f"u{n},{'abc'[n % 3]},{n}" for n in range(200_000)]
    (shop / "many.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    context = multiprocessing.get_context("spawn")
    rng = np.random.default_rng(0)
    for _ in range(2):
        process = context.Process(target=_ingest_all, args=(store.root, shop))
        process.start()
        journal = store.root / "writer.json"
        until = time.monotonic() + 30
        while not journal.exists() and process.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0.05, 1.0)))
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join(30)
        assert store.tables.count("interactions") in (4, 200_000), "the old log or the new one"
        assert set(catalogue(store, "title")) == {"a", "b", "c"}
    report = ingest(store, shop / "items.csv", shop / "many.csv", replace_interactions=True)
    assert report.events is not None
    assert store.tables.count("interactions") == 200_000
    assert len(set(store.tables.read("interactions")["event_id"].to_pylist())) == 200_000
