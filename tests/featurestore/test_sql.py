"""SQL: what can be asked, what is pinned, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from featurestore.errors import BadInput, NotFound
from featurestore.store import Store
from tests.featurestore import shop


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Published, then edited: i001 has another title today, and i002 is gone."""
    made = shop.build(tmp_path_factory.mktemp("shop") / "store")
    made.publish()
    shop.upsert(made, pa.table({"item_id": ["i001"], "title": ["Edited"]}))
    kept = [i for i in shop.ids() if i != "i002"]
    shop.upsert(made, pa.table({"item_id": kept}), remove_missing=True)
    return made


def one(store: Store, sql: str, release: str | None = None) -> object:
    return store.sql(sql, release).column(0)[0].as_py()


def test_every_table_is_a_view_and_features_have_names_of_their_own(store: Store) -> None:
    names = set(store.sql("SHOW TABLES")["name"].to_pylist())
    assert names >= {
        "items",
        "interactions",
        "catalogue",
        "feature_vector",
        "feature_picture",
        "feature_told_short",
    }
    assert shop.RECIPES["vector"].table("vector") in names
    assert one(store, "SELECT count(*) FROM interactions") == 60
    assert one(store, "SELECT count(*) FROM feature_vector WHERE status = 'ok'") == 60


def test_the_catalogue_joins_live_items_with_their_values(store: Store) -> None:
    rows = store.sql(
        "SELECT title, feature_vector, feature_tokens, feature_told_short, feature_picture, feature_picture_status "
        "FROM catalogue WHERE item_id IN ('i003', 'i010') ORDER BY item_id"
    ).to_pylist()
    assert rows[0]["title"] == "Thing 3"
    for feature in ("vector", "tokens", "picture"):
        assert rows[0][f"feature_{feature}"] == shop.value_of(feature, "Thing 3")
    assert rows[0]["feature_told_short"] == "told of Thing 3"
    assert (rows[1]["feature_picture"], rows[1]["feature_picture_status"]) == (None, "no_input")


def test_vectors_keep_their_arrow_types(store: Store) -> None:
    found = store.sql("SELECT feature_vector, feature_tokens FROM catalogue LIMIT 1").schema
    assert found.field("feature_vector").type == pa.list_(pa.float32(), shop.DIM)
    assert found.field("feature_tokens").type == pa.list_(pa.list_(pa.float32(), 4))


def test_today_and_a_release_are_each_asked_at_their_own_versions(store: Store) -> None:
    titles = "SELECT title FROM catalogue WHERE item_id = 'i001'"
    assert one(store, titles) == "Edited"
    assert one(store, titles, "0001") == "Thing 1"
    assert one(store, "SELECT count(*) FROM catalogue") == 59
    assert one(store, "SELECT count(*) FROM catalogue", "latest") == 60
    with pytest.raises(NotFound):
        store.sql(titles, "0009")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "FROM items SELECT item_id",
        "WITH cheap AS (SELECT * FROM catalogue WHERE price < 5) SELECT count(*) FROM cheap",
        "DESCRIBE catalogue",
        "SUMMARIZE items",
        "EXPLAIN SELECT * FROM items",
        "EXPLAIN ANALYZE SELECT * FROM items",
        "VALUES (1, 2)",
        "SELECT 1; -- a remark",
        "SELECT u.user_id, count(*) FROM interactions u JOIN catalogue USING (item_id) GROUP BY ALL",
    ],
)
def test_reading_statements_are_answered(store: Store, sql: str) -> None:
    assert store.sql(sql).num_rows > 0


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO items VALUES (1)",
        "UPDATE items SET title = 'x'",
        "DELETE FROM items",
        "DROP VIEW items",
        "CREATE TABLE x AS SELECT 1",
        "CREATE VIEW x AS SELECT 1",
        "COPY items TO '/tmp/dualview-must-not-exist.csv'",
        "COPY (SELECT 1) TO '/tmp/dualview-must-not-exist.csv'",
        "EXPORT DATABASE '/tmp/dualview-must-not-exist'",
        "ATTACH '/tmp/dualview-must-not-exist.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET lock_configuration = false",
        "PRAGMA database_list",
        "CALL pragma_version()",
        "CHECKPOINT",
        "BEGIN",
        "COMMIT",
        "EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1",
        "EXPLAIN (ANALYZE) DELETE FROM items",
        "EXPLAIN COPY items TO '/tmp/dualview-must-not-exist.csv'",
        "WITH gone AS (DELETE FROM items RETURNING *) SELECT * FROM gone",
        "SELECT 1; DROP VIEW items",
        "SELECT 1; SELECT 2",
        "",
        "-- nothing",
        "SELEC 1",
        "SELECT * FROM nowhere",
        "SELECT pirce FROM catalogue",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT getenv('HOME')",
        "SELECT * FROM store",
    ],
)
def test_anything_that_writes_or_reaches_out_is_refused_with_what_can_be_asked(
    store: Store, sql: str
) -> None:
    with pytest.raises(BadInput) as caught:
        store.sql(sql)
    assert "SELECT" in (caught.value.remedy or "")
    assert not list(Path("/tmp").glob("dualview-must-not-exist*"))


def test_a_store_without_tables_can_be_asked_too(tmp_path: Path) -> None:
    empty = Store.create(tmp_path / "store", "")
    assert empty.sql("SHOW TABLES").num_rows == 0
    assert one(empty, "SELECT 1 + 1") == 2


def test_features_whose_views_would_have_one_name_are_refused(tmp_path: Path) -> None:
    one_feature = '[features."a.b"]\nkind = "imported"\ninputs = ["title"]\nencoder = "imported"\n'
    store = Store.create(tmp_path / "store", one_feature + one_feature.replace("a.b", "a_b"))
    shop.upsert(store, shop.catalogue())
    for name in ("a.b", "a_b"):
        recipe = shop.RECIPES["vector"]
        store.lock_recipe(name, recipe)
        store.tables.create(
            recipe.table(name),
            pa.schema([("item_id", pa.string()), ("value", pa.string()), ("status", pa.string())]),
        )
    with pytest.raises(BadInput, match=r"'a.b' and 'a_b'"):
        store.sql("SELECT 1")


def test_column_names_with_quotes_and_blanks_are_shown(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", "")
    shop.upsert(store, pa.table({"item_id": ["a"], "title": ["t"], 'odd "name", here': [3]}))
    assert store.sql("SELECT * FROM catalogue").to_pylist()[0]['odd "name", here'] == 3


def test_a_wrong_table_is_answered_with_ours_and_not_with_duckdbs(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no table 'itmes'") as wrong:
        store.sql("select * from itmes")
    assert wrong.value.remedy == "did you mean 'items'?"
    empty = Store.create(tmp_path / "empty", "")
    for name in ("items", "catalogue"):
        with pytest.raises(BadInput, match=f"no table '{name}'") as wrong:
            empty.sql(f"select * from {name}")
        assert wrong.value.remedy == f"the store holds no items yet: dualview ingest {empty.root} ITEMS"
