"""What a store holds is read here with the plain libraries alone: nothing below a fixture imports a package of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import faiss
import lance
import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

DIM = 8
N = 40


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one release, and an export of it, made by our own calls."""
    from dualview import Store

    folder = tmp_path_factory.mktemp("open")
    store = Store.create(folder / "store", "")
    ids = [f"i{n:02d}" for n in range(N)]
    catalogue = pa.table(
        {"item_id": ids, "title": [f"thing {n}" for n in range(N)], "price": np.arange(N) / 2}
    )
    log = pa.table({"user_id": ["u", "u", "w"], "item_id": ids[:3], "timestamp": [10, 20, 30]})
    store.ingest(catalogue, interactions=log)
    np.save(folder / "v.npy", vectors())
    (folder / "v.ids.txt").write_text("\n".join(ids) + "\n")
    store.import_vectors("clip", folder / "v.npy", model="ViT-B-32")
    store.publish()
    store.export(folder / "out")
    return folder


def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, DIM)).astype(np.float32)


def manifest(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "store/releases/0001/manifest.json").read_text())
    return found


def derived(root: Path, entry: dict[str, Any]) -> Path:
    return root / "store" / "derived" / entry["derived"] / entry["file"]


def test_lancedb_opens_the_tables_and_searches_them(root: Path) -> None:
    database = lancedb.connect(root / "store" / "tables")
    table = manifest(root)["features"]["clip"]["table"]
    assert {"items", "interactions", table} <= set(database.list_tables().tables)
    found = database.open_table(table).search(vectors()[7], vector_column_name="value").limit(1).to_list()
    assert found[0]["item_id"] == "i07"


def test_pylance_reads_a_table_at_the_version_that_a_release_pins(root: Path) -> None:
    told = manifest(root)
    version = told["tables"]["items"]
    items = lance.dataset(root / "store" / "tables" / "items.lance", version=version).to_table()
    assert items.num_rows == told["items"] == N
    assert items.schema.field("price").type == pa.float64()


def test_duckdb_queries_a_table_through_arrow(root: Path) -> None:
    items = lance.dataset(root / "store" / "tables" / "items.lance")
    events = lance.dataset(root / "store" / "tables" / "interactions.lance")
    connection = duckdb.connect()
    connection.register("items", items)
    connection.register("events", events)
    query = "SELECT title, user_id FROM events JOIN items USING (item_id) ORDER BY timestamp DESC LIMIT 1"
    assert connection.execute(query).fetchall() == [("thing 2", "w")]


def test_numpy_maps_the_matrix_and_pyarrow_the_catalogue_of_a_release(root: Path) -> None:
    told = manifest(root)
    values = np.load(derived(root, told["features"]["clip"]["files"]["values"]), mmap_mode="r")
    assert np.array_equal(values, vectors())
    ids = np.load(derived(root, told["files"]["ids"]))
    with pa.memory_map(str(derived(root, told["files"]["catalogue"]))) as source:
        catalogue = pa.ipc.open_file(source).read_all()
    assert catalogue["item_id"].to_pylist() == ids.tolist()
    with pa.memory_map(str(derived(root, told["files"]["events"]))) as source:
        assert pa.ipc.open_file(source).read_all()["timestamp"].to_pylist() == [10, 20, 30]


def test_faiss_answers_from_the_index_file(root: Path) -> None:
    told = manifest(root)["features"]["clip"]
    index = faiss.read_index(str(derived(root, told["files"]["index"])))
    assert (index.ntotal, index.d) == (N, DIM)
    query = vectors()[[7]]
    _, rows = index.search(query / np.linalg.norm(query), 1)
    assert rows[0, 0] == 7


def test_pyarrow_and_duckdb_read_an_export(root: Path) -> None:
    table = pq.read_table(root / "out/features/clip.parquet")
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors())
    recipe = json.loads(table.schema.metadata[b"dualview.recipe"])
    assert recipe["model"]["id"] == "ViT-B-32"
    nearest = f"""
        SELECT b.item_id FROM '{root}/out/features/clip.parquet' a, '{root}/out/features/clip.parquet' b
        WHERE a.item_id = 'i07' ORDER BY list_cosine_similarity(a.vector, b.vector) DESC LIMIT 1"""
    assert duckdb.sql(nearest).fetchall() == [("i07",)]


def test_what_a_store_says_of_itself_is_json_and_toml(root: Path) -> None:
    import tomllib

    locked = json.loads((root / "store/features.lock.json").read_text())["features"]["clip"]
    assert locked["recipe"]["kind"] == "imported"
    assert tomllib.loads((root / "store/features.toml").read_text())["features"]["clip"]["dim"] == DIM
    verbs = [json.loads(line)["verb"] for line in (root / "store/journal.jsonl").read_text().splitlines()]
    assert verbs == ["init", "ingest", "import", "publish"]
