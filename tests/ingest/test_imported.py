"""Values computed elsewhere: what becomes of each, and what is refused before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import features as cells
from featurestore import journal
from featurestore.errors import BadInput, Conflict, NotFound, Stale
from featurestore.export import export
from featurestore.search import similar
from featurestore.store import Store
from ingest.imported import ImportReport, import_texts, import_vectors
from ingest.load import ingest
from ingest.materialize import materialize

IDS = [f"i{n}" for n in range(6)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Six items, and no feature declared."""
    store = Store.create(tmp_path / "store", "# mine\n")
    fill(store)
    return store


def fill(store: Store, **edits: str) -> None:
    titles = [edits.get(i, f"thing {i}") for i in IDS]
    ingest(store, pa.table({"item_id": IDS, "title": titles, "price": np.arange(6.0)}))


def vectors(n: int = 6, dim: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def npy(folder: Path, values: np.ndarray, ids: list[str] | None = None, name: str = "v") -> Path:
    np.save(folder / f"{name}.npy", values)
    (folder / f"{name}.ids.txt").write_text("\n".join(IDS[: len(values)] if ids is None else ids) + "\n")
    return folder / f"{name}.npy"


def parquet(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "v.parquet")
    return folder / "v.parquet"


def bring(store: Store, path: Path, **said: Any) -> ImportReport:
    return import_vectors(store, "clip", path, **({"model": "ViT-B-32"} | said))


def table_of(store: Store) -> dict[str, dict[str, Any]]:
    rows = store.tables.read(store.feature_table("clip")).to_pylist()
    return {row["item_id"]: row for row in rows}


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---- what becomes of values


def test_vectors_are_joined_by_id_and_the_feature_is_declared(store: Store, tmp_path: Path) -> None:
    given = vectors()
    report = bring(store, npy(tmp_path, given[::-1], IDS[::-1]), revision="abc", note='CLIP, "large"')
    assert (report.ok, report.written, report.declared) == (6, 6, True)
    ids, values = store.matrix("clip")
    assert ids.tolist() == IDS
    assert np.array_equal(values, given)
    toml = (store.root / "features.toml").read_text()
    assert toml.startswith("# mine\n")
    definition = store.definitions.get("clip")
    assert (definition.inputs, definition.model, definition.description) == (
        ["text"],
        "ViT-B-32",
        'CLIP, "large"',
    )
    recipe = store.recipe("clip")
    assert recipe is not None
    assert recipe.model is not None
    assert (recipe.kind, recipe.model.revision, recipe.inputs) == ("imported", "abc", ("column:title",))
    assert store.status().current
    assert store.publish().facts("clip")["coverage"]["ok"] == 6


def test_a_file_without_a_row_is_refused(store: Store, tmp_path: Path) -> None:
    empty = pa.table(
        {"item_id": pa.array([], pa.string()), "vector": pa.array([], pa.list_(pa.float32(), 4))}
    )
    pq.write_table(empty, tmp_path / "empty.parquet")
    with pytest.raises(BadInput, match="no row"):
        bring(store, tmp_path / "empty.parquet")


def test_the_same_file_again_writes_nothing(store: Store, tmp_path: Path) -> None:
    path = npy(tmp_path, vectors())
    bring(store, path, revision="abc")
    before = everything(store.root)
    for again in (bring(store, path, revision="abc"), import_vectors(store, "clip", path)):
        assert (again.written, again.unchanged) == (0, 6)
    assert {k: v for k, v in everything(store.root).items() if k in before} == before


def test_items_that_the_file_has_not_are_no_input_and_do_not_hold_up_a_release(
    store: Store, tmp_path: Path
) -> None:
    report = bring(store, npy(tmp_path, vectors(4), ["i0", "i1", "i2", "nobody"]))
    assert (report.ok, report.absent, report.unknown, report.unknown_examples) == (3, 3, 1, ["nobody"])
    coverage = store.publish().facts("clip")["coverage"]
    assert (coverage["ok"], coverage["no_input"], coverage["missing"]) == (3, 3, 0)


def test_vectors_that_cannot_be_stored_are_errors_of_their_items(store: Store, tmp_path: Path) -> None:
    given = vectors().astype(np.float64)
    given[1, 0], given[2, 1], given[3], given[4, 2] = np.nan, np.inf, 0, 1e300
    report = bring(store, npy(tmp_path, given))
    assert report.errors == {"not_finite": 2, "overflow": 1, "zero_vector": 1}
    found = table_of(store)
    assert {i: found[i]["error_code"] for i in IDS} == {
        "i0": None,
        "i1": "not_finite",
        "i2": "not_finite",
        "i3": "zero_vector",
        "i4": "overflow",
        "i5": None,
    }
    assert found["i1"]["value"] is None
    assert found["i0"]["value"] == given[0].astype(np.float32).tolist()
    assert {group.code for group in store.errors()} == {"not_finite", "overflow", "zero_vector"}
    assert bring(store, tmp_path / "v.npy").written == 0


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_float_type_is_taken(store: Store, tmp_path: Path, dtype: str) -> None:
    given = vectors().astype(dtype)
    bring(store, npy(tmp_path, given))
    assert np.array_equal(store.matrix("clip")[1], given.astype(np.float32))


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float32(), 4), pa.list_(pa.float32()), pa.list_(pa.float16()), pa.large_list(pa.float64())],
    ids=str,
)
def test_parquet_is_taken_with_any_kind_of_list_and_null_is_no_value(
    store: Store, tmp_path: Path, kind: pa.DataType
) -> None:
    given = vectors().astype(np.float16)
    rows: list[Any] = [None if n == 2 else list(map(float, row)) for n, row in enumerate(given)]
    report = bring(
        store, parquet(tmp_path, item_id=IDS, emb=pa.array(rows, pa.list_(pa.float64())).cast(kind))
    )
    assert (report.ok, report.absent, report.dim) == (5, 1, 4)
    assert np.array_equal(store.matrix("clip")[1], given[[0, 1, 3, 4, 5]].astype(np.float32))


def test_a_null_inside_a_vector_is_an_error_of_its_item(store: Store, tmp_path: Path) -> None:
    rows = [[1.0, 2.0], [1.0, None]]
    report = bring(store, parquet(tmp_path, item_id=IDS[:2], emb=pa.array(rows, pa.list_(pa.float32(), 2))))
    assert report.errors == {"not_finite": 1}


@pytest.mark.parametrize("form", ["txt", "json", "npy", "numbers"])
def test_ids_come_in_a_text_file_json_or_npy(tmp_path: Path, form: str) -> None:
    store = Store.create(tmp_path / "s", "")
    ingest(store, pa.table({"item_id": ["1", "2"], "title": ["a", "b"]}))
    np.save(tmp_path / "v.npy", vectors(2))
    ids = tmp_path / f"ids.{'npy' if form == 'numbers' else form}"
    if form == "txt":
        ids.write_bytes("\ufeff1\r\n 2".encode())
    elif form == "json":
        ids.write_text('[1, "2"]')
    else:
        np.save(ids, np.array([1, 2] if form == "numbers" else ["1", "2"]))
    assert bring(store, tmp_path / "v.npy", ids=ids).ok == 2


def test_texts_are_imported_as_a_feature_that_others_can_read(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", "")
    fill(store)
    path = parquet(tmp_path, item_id=IDS[:4], text=["a red shoe", "a blue shoe", " \n", None])
    report = import_texts(store, "told", path, model="captioner", inputs=["title"])
    assert (report.ok, report.absent, report.kind, report.dim) == (2, 4, "text", None)
    (store.root / "features.toml").write_text(
        (store.root / "features.toml").read_text()
        + '\n[features.vector]\nkind = "embed_text"\ninputs = ["told"]\nencoder = "tfidf_svd"\ndim = 2\n'
    )
    materialize(store)
    assert store.matrix("vector")[0].tolist() == ["i0", "i1"]
    release = store.publish()
    assert release.catalogue["feature_told"].to_pylist()[:3] == ["a red shoe", "a blue shoe", None]


# ---- what is stale


def test_an_edited_item_waits_for_another_file(store: Store, tmp_path: Path) -> None:
    path = npy(tmp_path, vectors())
    bring(store, path)
    fill(store, i1="another thing")
    status = store.status().features[0]
    assert (status.stale, status.missing) == (1, 0)
    assert any("import" in note for note in status.notes)
    with pytest.raises(Stale, match="clip: 1 stale") as refused:
        store.publish()
    assert "import" in (refused.value.remedy or "")
    assert materialize(store).computed == 0
    again = bring(store, path)
    assert (again.written, again.stale) == (0, 1), "the same file knows nothing of the edit"
    newer = bring(store, npy(tmp_path, vectors(seed=1)))
    assert (newer.ok, newer.before) == (6, again.recipe)
    assert newer.recipe != again.recipe
    assert store.status().current


def test_renew_says_that_the_values_still_hold(store: Store, tmp_path: Path) -> None:
    path = npy(tmp_path, vectors())
    bring(store, path)
    fill(store, i1="another thing")
    assert bring(store, path, renew=True).written == 1
    assert store.status().current


def test_a_column_that_is_no_input_makes_nothing_stale(store: Store, tmp_path: Path) -> None:
    bring(store, npy(tmp_path, vectors()), inputs=["price"])
    fill(store, i1="another thing")
    assert store.status().current


def test_releases_keep_serving_the_earlier_file(store: Store, tmp_path: Path) -> None:
    bring(store, npy(tmp_path, vectors()))
    first = store.publish()
    bring(store, npy(tmp_path, vectors(seed=1)))
    second = store.publish()
    assert np.array_equal(first.matrix("clip").values, vectors())
    assert np.array_equal(second.matrix("clip").values, vectors(seed=1))


def test_an_import_that_was_stopped_goes_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = npy(tmp_path, vectors())
    monkeypatch.setattr("ingest.imported.values.ROWS", 2)
    commit, calls = cells.commit, []

    def stopped(*given: Any) -> int:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return commit(*given)

    monkeypatch.setattr("featurestore.features.commit", stopped)
    with pytest.raises(KeyboardInterrupt):
        bring(store, path)
    monkeypatch.setattr("featurestore.features.commit", commit)
    report = bring(store, path)
    assert (report.unchanged, report.ok) == (4, 2)
    assert np.array_equal(store.matrix("clip")[1], vectors())


# ---- what is refused, before anything is written


def test_a_dry_run_counts_everything_and_writes_nothing(store: Store, tmp_path: Path) -> None:
    given = vectors()
    given[0] = np.nan
    path = npy(tmp_path, given, [*IDS[:5], "nobody"])
    before = everything(store.root)
    told = bring(store, path, dry_run=True)
    assert everything(store.root) == before
    made = bring(store, path)
    assert told.to_dict() | {"dry_run": False, "seconds": 0} == made.to_dict() | {"seconds": 0}
    assert (made.ok, made.error, made.absent, made.unknown) == (4, 1, 1, 1)


def refused(store: Store, path: Path, match: str, **said: Any) -> None:
    before = everything(store.root)
    with pytest.raises((BadInput, Conflict), match=match):
        bring(store, path, **said)
    after = everything(store.root)
    assert {k: v for k, v in after.items() if not k.startswith("writer")} == {
        k: v for k, v in before.items() if not k.startswith("writer")
    }


def test_files_that_cannot_be_meant_are_refused(store: Store, tmp_path: Path) -> None:
    refused(store, npy(tmp_path, vectors(), ["i0", "i1", "i1", "i2", "i3", "i4"]), "more than once: 'i1'")
    refused(store, npy(tmp_path, vectors(), IDS[:5]), "6 rows and v.ids.txt 5 ids")
    refused(store, npy(tmp_path, vectors(), ["i0", "", "i2", "i3", "i4", "i5"]), "row 2 of .* has no id")
    refused(store, npy(tmp_path, vectors(), [f"x{n}" for n in range(6)]), "none of the 6 ids")
    refused(store, npy(tmp_path, vectors()[0]), "not one vector a row")
    refused(store, npy(tmp_path, np.ones((6, 4), np.int64)), "int64")
    np.save(tmp_path / "o.npy", np.array([object()]), allow_pickle=True)
    refused(store, tmp_path / "o.npy", "cannot be read as npy")
    refused(store, tmp_path / "none.npy", "there is no file")
    refused(store, npy(tmp_path, vectors()), "there is no file of ids", ids=tmp_path / "none.txt")
    (tmp_path / "v.csv").write_text("a,b")
    refused(store, tmp_path / "v.csv", "no .npy or .parquet file")
    ragged = parquet(tmp_path, item_id=IDS[:3], emb=[[1.0, 2.0], None, [1.0]])
    refused(store, ragged, "item 'i2' has a vector of 1 numbers, those before it have 2")
    refused(store, parquet(tmp_path, item=IDS, emb=[[1.0]] * 6), "no column 'item_id'")
    refused(store, parquet(tmp_path, item_id=IDS, a=[[1.0]] * 6, b=[[1.0]] * 6), "2 columns that could")
    refused(store, parquet(tmp_path, item_id=IDS, a=[[1.0]] * 6), "did you mean 'a'", column="aa")
    assert "clip" not in store.definitions.features


def test_nothing_is_imported_without_a_word_on_what_made_it(store: Store, tmp_path: Path) -> None:
    refused(store, npy(tmp_path, vectors()), "nothing says what made", model=None)
    refused(store, npy(tmp_path, vectors()), "'titel', which the items do not have", inputs=["titel"])


def test_a_feature_that_is_declared_otherwise_is_not_touched(store: Store, tmp_path: Path) -> None:
    (store.root / "features.toml").write_text(
        '[features.clip]\nkind = "embed_text"\ninputs = ["text"]\nencoder = "tfidf_svd"\n'
    )
    refused(store, npy(tmp_path, vectors()), 'with kind = "embed_text"')
    (store.root / "features.toml").write_text("")
    bring(store, npy(tmp_path, vectors()))
    refused(store, npy(tmp_path, vectors(dim=3)), "with dim = 4, the import says 3")
    refused(store, npy(tmp_path, vectors()), 'with model = "ViT-B-32"', model="other")
    refused(store, npy(tmp_path, vectors()), "with inputs", inputs=["price"])


def test_a_dotted_name_is_declared_beside_its_namesakes(store: Store, tmp_path: Path) -> None:
    bring(store, npy(tmp_path, vectors()))
    import_vectors(store, "clip.small", npy(tmp_path, vectors(dim=2)), model="m")
    assert list(store.definitions.features) == ["clip", "clip.small"]


def test_what_was_imported_stands_in_the_journal(store: Store, tmp_path: Path) -> None:
    bring(store, npy(tmp_path, vectors()), note="from the lab")
    entry = journal.read(store.root)[-1]
    assert (entry["verb"], entry["feature"], entry["note"], entry["ok"]) == (
        "import",
        "clip",
        "from the lab",
        6,
    )


def test_an_empty_store_has_nothing_to_join(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", "")
    with pytest.raises(BadInput, match="holds no items"):
        bring(store, npy(tmp_path, vectors()))


# ---- there and back


@pytest.mark.parametrize("to", ["npy", "parquet"])
def test_what_one_store_exports_another_imports_with_the_same_neighbours(
    store: Store, tmp_path: Path, to: str
) -> None:
    bring(store, npy(tmp_path, vectors()), revision="abc")
    first = store.publish()
    export(first, tmp_path / "out", to=to)
    other = Store.create(tmp_path / "other", "")
    fill(other)
    path = tmp_path / "out" / ("clip.npy" if to == "npy" else "features/clip.parquet")
    assert import_vectors(other, "clip", path).ok == 6
    second = other.publish()
    for item in IDS:
        columns = ["item_id", "score"]
        there, here = (similar(r, item=item, feature="clip", k=5).select(columns) for r in (first, second))
        assert there == here
    origin = second.facts("clip")["recipe"]["options"]["origin"]
    assert origin["release"] == "0001"
    assert origin["recipe_id"] == first.facts("clip")["recipe_id"]
    assert origin["store"] == json.loads((store.root / "store.json").read_text())["id"]
    assert second.facts("clip")["recipe"]["model"]["revision"] == "abc"


def test_an_unknown_feature_is_no_input(store: Store, tmp_path: Path) -> None:
    with pytest.raises((BadInput, NotFound), match="nowhere"):
        bring(store, npy(tmp_path, vectors()), inputs=["feature:nowhere"])
