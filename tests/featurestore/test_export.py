"""Exports are read here with the plain libraries that others would use: pyarrow, DuckDB, numpy, pandas."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import interactions
from featurestore.errors import BadInput, Conflict, NotFound
from featurestore.export import export
from featurestore.release import Release
from featurestore.store import Store
from tests.featurestore import shop


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = shop.build(tmp_path_factory.mktemp("export") / "store")
    odd = pa.table(
        {
            "item_id": ['say "hi"', "i\u00e9"],
            "title": ['two\tparts\nof a "title" that is long enough', None],
            "price": pa.array([0.1, None], pa.float64()),
            "tags": pa.array([["science fiction", "x"], None], pa.list_(pa.string())),
            "image": pa.array([None, None], pa.string()),
            "_image_sha256": pa.array([None, None], pa.string()),
        }
    )
    shop.upsert(store, odd)
    for feature in ("vector", "picture", "told.short", "tokens"):
        shop.materialize(store, feature)
    store.publish()
    return store


@pytest.fixture(scope="module")
def release(store: Store) -> Release:
    return store.release()


def test_parquet_holds_every_item_and_its_status_for_pyarrow(release: Release, tmp_path: Path) -> None:
    export(release, tmp_path / "out", to="parquet")
    table = pq.read_table(tmp_path / "out/features/picture.parquet")
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 3)
    rows = table.to_pylist()
    assert [row["item_id"] for row in rows] == release.ids.tolist()
    assert {row["status"] for row in rows if row["vector"] is None} == {"no_input"}
    given = np.array([row["vector"] for row in rows if row["status"] == "ok"], np.float32)
    assert np.array_equal(given, release.matrix("picture").values)
    tokens = pq.read_table(tmp_path / "out/features/tokens.parquet")["vectors"].to_pylist()
    matrix = release.matrix("tokens")
    assert matrix.offsets is not None
    assert tokens[0] == matrix.values[: matrix.offsets[1]].tolist()
    told = pq.read_table(tmp_path / "out/features/told.short.parquet")
    assert told["text"].to_pylist() == release.catalogue["feature_told_short"].to_pylist()


def test_parquet_answers_a_query_of_duckdb(release: Release, tmp_path: Path) -> None:
    export(release, tmp_path / "out", to="parquet", features=["vector"])
    folder = tmp_path / "out"
    found = duckdb.sql(
        f"""SELECT i.title, list_cosine_similarity(a.vector, b.vector) AS score
        FROM '{folder}/features/vector.parquet' a, '{folder}/features/vector.parquet' b
        JOIN '{folder}/items.parquet' i ON i.item_id = b.item_id
        WHERE a.item_id = 'i000' AND b.vector IS NOT NULL ORDER BY score DESC LIMIT 1"""
    ).fetchall()
    assert found[0][0] == "Thing 0"
    assert found[0][1] == pytest.approx(1.0)
    count = duckdb.sql(f"SELECT count(*) FROM '{folder}/interactions.parquet'").fetchall()
    assert count == [(release.n_events,)]


def test_a_parquet_file_says_what_made_it(store: Store, release: Release, tmp_path: Path) -> None:
    export(release, tmp_path / "out", to="parquet")
    said = pq.read_schema(tmp_path / "out/features/vector.parquet").metadata
    recipe = shop.RECIPES["vector"]
    assert said[b"dualview.recipe_id"].decode() == recipe.id
    assert json.loads(said[b"dualview.recipe"]) == recipe.canonical()
    assert said[b"dualview.release"] == b"0001"
    about = json.loads((store.root / "store.json").read_text())
    assert said[b"dualview.store"].decode() == about["id"]
    kept = json.loads((tmp_path / "out/provenance.json").read_text())
    assert kept["features"]["vector"]["recipe_id"] == recipe.id
    assert kept["release"]["name"] == "0001"


def test_npy_rows_belong_to_the_lines_of_the_ids(release: Release, tmp_path: Path) -> None:
    report = export(release, tmp_path / "out", to="npy")
    for name in ("vector", "picture", "tokens"):
        matrix = release.matrix(name)
        assert np.array_equal(np.load(tmp_path / f"out/{name}.npy"), matrix.values)
        ids = (tmp_path / f"out/{name}.ids.txt").read_text(encoding="utf-8").split("\n")[:-1]
        assert ids == matrix.ids.tolist()
    said = json.loads((tmp_path / "out/vector.json").read_text())
    assert said["recipe_id"] == shop.RECIPES["vector"].id
    assert (said["items"], said["dim"]) == np.load(tmp_path / "out/vector.npy").shape
    assert len(np.load(tmp_path / "out/tokens.offsets.npy")) == len(release.matrix("tokens")) + 1
    assert report.notes == ["left out feature 'told.short': npy cannot hold text; parquet can"]


def atomic(path: Path) -> pd.DataFrame:
    """As RecBole reads its atomic files: types from the header, tabs, pandas' python engine."""
    kinds = dict(cell.split(":") for cell in path.read_text(encoding="utf-8").split("\n")[0].split("\t"))
    types = {f"{n}:{k}": np.float64 if k == "float" else str for n, k in kinds.items()}
    frame = pd.read_csv(path, delimiter="\t", dtype=types, encoding="utf-8", engine="python")
    return frame.rename(columns=lambda name: name.split(":")[0])


def test_atomic_files_are_read_as_recbole_documents_them(release: Release, tmp_path: Path) -> None:
    export(release, tmp_path / "shop", to="recbole")
    header = (tmp_path / "shop/shop.item").read_text(encoding="utf-8").split("\n")[0]
    assert header.split("\t") == [
        "item_id:token",
        "title:token_seq",
        "price:float",
        "tags:token_seq",
        "feature_told_short:token_seq",
    ]
    items = atomic(tmp_path / "shop/shop.item")
    assert items["item_id"].tolist() == release.ids.tolist(), "a quote in an id survives"
    odd = items.set_index("item_id").loc['say "hi"']
    assert odd["title"] == "two parts of a 'title' that is long enough"
    assert odd["tags"].split(" ") == ["science_fiction", "x"]
    assert odd["price"] == 0.1
    inter = atomic(tmp_path / "shop/shop.inter")
    log = release.events()
    for name in ("user_id", "item_id", "timestamp"):
        assert inter[name].tolist() == log[name].to_pylist()
    assert list(inter.columns) == ["user_id", "item_id", "timestamp"], "what no event has is no field"


def test_vectors_go_to_recbole_as_an_additional_file_that_is_preloaded(
    release: Release, tmp_path: Path
) -> None:
    export(release, tmp_path / "shop", to="recbole", features=["picture"])
    vectors = atomic(tmp_path / "shop/shop.picture_emb")
    given = np.array([row.split(" ") for row in vectors["picture_emb"]], np.float32)
    matrix = release.matrix("picture")
    assert np.array_equal(given, matrix.values)
    assert vectors["picture_id"].tolist() == matrix.ids.tolist()
    config = (tmp_path / "shop/shop.yaml").read_text()
    assert 'additional_feat_suffix: ["picture_emb"]' in config
    assert "  picture_id: picture_emb" in config


def test_ratings_go_along_and_events_of_items_that_left_do_not(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store")
    rated = shop.log().set_column(5, "value", pa.array(np.arange(60) / 2))
    gone = pa.table({"item_id": ["gone"], "title": ["left"]})
    events = pa.concat_tables([rated, rated.slice(0, 1).set_column(1, "item_id", pa.array(["gone"]))])
    shop.upsert(store, pa.concat_tables([shop.catalogue(), gone], promote_options="default"))
    with store.lock("test"):
        interactions.upsert_interactions(store.tables, events, replace=True)
    shop.upsert(store, shop.catalogue(), remove_missing=True)
    for feature in ("vector", "picture", "told.short", "tokens"):
        shop.materialize(store, feature)
    export(store.publish(), tmp_path / "shop", to="recbole")
    inter = atomic(tmp_path / "shop/shop.inter")
    assert len(inter) == 60
    assert sorted(inter["rating"]) == (np.arange(60) / 2).tolist()


def test_an_id_that_pandas_reads_as_no_value_is_refused_for_recbole(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=())
    shop.upsert(store, pa.table({"item_id": ["NA"], "title": ["Namibia"]}))
    with pytest.raises(BadInput, match="item id 'NA' as no value"):
        export(store.publish(allow_stale=True), tmp_path / "out", to="recbole")
    assert not (tmp_path / "out").exists()


def test_columns_that_recbole_would_hold_under_one_name_are_refused(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=())
    shop.upsert(store, pa.table({"item_id": ["new"], "a:b": ["one"], "a_b": ["two"]}))
    with pytest.raises(BadInput, match="columns 'a:b' and 'a_b' would both be 'a_b'"):
        export(store.publish(allow_stale=True), tmp_path / "out", to="recbole")


def test_features_that_recbole_would_hold_in_one_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.create(tmp_path / "store", shop.TOML.replace("vector", '"a.b"').replace("picture", "a_b"))
    shop.upsert(store, shop.catalogue())
    for feature, like in (("a.b", "vector"), ("a_b", "picture")):
        monkeypatch.setitem(shop.RECIPES, feature, shop.RECIPES[like])
        shop.materialize(store, feature)
    with pytest.raises(BadInput, match=r"features 'a\.b' and 'a_b' would both be 'a_b'"):
        export(store.publish(allow_stale=True), tmp_path / "out", to="recbole")


def test_a_dry_run_lists_the_files_and_writes_nothing(release: Release, tmp_path: Path) -> None:
    for to in ("parquet", "npy", "recbole"):
        told = export(release, tmp_path / to, to=to, dry_run=True)
        assert list(tmp_path.iterdir()) == []
        made = export(release, tmp_path / to, to=to)
        assert [file.name for file in told.files] == [file.name for file in made.files]
        assert all(file.bytes > 0 for file in told.files)
        for path in (tmp_path / to).rglob("*"):
            assert path.is_dir() or path.relative_to(tmp_path / to).as_posix() in [f.name for f in made.files]
        for child in sorted((tmp_path / to).rglob("*"), reverse=True):
            child.rmdir() if child.is_dir() else child.unlink()
        (tmp_path / to).rmdir()


def test_an_export_is_replaced_only_when_asked_and_nothing_else_ever(
    release: Release, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export(release, out, to="npy")
    with pytest.raises(Conflict, match="holds an export already"):
        export(release, out, to="npy")
    export(release, out, to="npy", features=["picture"], overwrite=True)
    assert not (out / "vector.npy").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    with pytest.raises(Conflict, match="is no export"):
        export(release, mine, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"], "nothing is left lying about"


def test_a_failed_export_leaves_the_earlier_one(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(release, out, to="npy")
    before = sorted(path.name for path in out.iterdir())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(Exception, match="the disk is full"):
        export(release, out, to="npy", overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_wrong_names_are_answered_with_the_nearest(release: Release, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'parquet'"):
        export(release, tmp_path / "out", to="parket")
    with pytest.raises(NotFound, match="did you mean 'picture'"):
        export(release, tmp_path / "out", features=["pictures"])
    with pytest.raises(BadInput, match=r"npy cannot hold feature 'told\.short'"):
        export(release, tmp_path / "out", to="npy", features=["told.short"])


@pytest.mark.parametrize("inside", ["out", "runs/out"])
def test_a_folder_inside_a_store_is_refused(store: Store, release: Release, inside: str) -> None:
    with pytest.raises(BadInput, match="lies inside the store"):
        export(release, store.root / inside)
    assert not (store.root / inside).exists()
