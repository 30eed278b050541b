"""Releases with exact and approximate indexes: what publish asks for, and filters from the real grammar over both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

from featurestore import ann, indexes, release, tuning
from featurestore.errors import BadInput, Conflict, NotFound, Stale
from featurestore.release import Release
from featurestore.search import nearest
from featurestore.store import Store
from tests.featurestore import shop

N = 2000
FILTERS = 1000
K = 10


@pytest.fixture(autouse=True, scope="module")
def _small() -> Iterator[None]:
    """What a hundred thousand vectors get is given to a thousand, and ten rows are many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexes, "EXACT_UP_TO", 1500)
        patch.setattr(ann, "GATHER_ROWS", 10)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 2,000 items: release 0001 has an approximate index, 0002 an exact one."""
    store = Store.create(tmp_path_factory.mktemp("large") / "store", shop.TOML)
    shop.upsert(store, shop.catalogue(N))
    shop.materialize(store, "vector")
    store.publish(allow_stale=True)
    _ask_for(store, "exact")
    store.publish(allow_stale=True)
    return store.root


@pytest.fixture
def store(root: Path) -> Store:
    return Store.open(root)


def _ask_for(store: Store, kind: str) -> None:
    (store.root / "features.toml").write_text(
        shop.TOML.replace("[features.vector]\n", f'[features.vector]\nindex = "{kind}"\n')
    )


def _facts(served: Release) -> dict[str, object]:
    facts: dict[str, object] = served.facts("vector")["index"]
    return facts


# ---- what is published


def test_the_manifest_says_how_an_approximate_index_was_made_and_what_it_finds(store: Store) -> None:
    facts = _facts(store.release("0001"))
    assert facts["recall"] >= 0.99  # type: ignore[operator]
    assert {name: facts[name] for name in facts if name not in ("recall", "nprobe", "shortlist")} == {
        "kind": "ivf",
        "exact": False,
        "factory": "IVF32,PQ8x4fsr",
        "nlist": 32,
        "target": 0.99,
        "k": 10,
        "queries": {"tuning": 500, "report": 500},
        "seed": tuning.SEED,
        "metric": "cosine",
        "rows": N,
        "dim": shop.DIM,
    }
    assert facts["nprobe"] <= 32  # type: ignore[operator]
    assert _facts(store.release("0002"))["kind"] == "exact"


def test_an_index_that_is_asked_for_changes_no_recipe_and_makes_nothing_stale(store: Store) -> None:
    first, second = store.release("0001"), store.release("0002")
    assert first.facts("vector")["recipe_id"] == second.facts("vector")["recipe_id"]
    assert first.facts("vector")["files"]["values"] == second.facts("vector")["files"]["values"]
    assert store.outdated("vector") is None


def test_another_recall_makes_another_index_and_release_and_the_same_one_does_not(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", shop.TOML)
    shop.upsert(store, shop.catalogue(N))
    shop.materialize(store, "vector")
    first = store.publish(allow_stale=True, recall=0.9)
    assert store.publish(allow_stale=True, recall=0.9).name == first.name
    second = store.publish(allow_stale=True, recall=0.95)
    assert second.name == "0002"
    assert _facts(second)["target"] == 0.95
    entries = [served.facts("vector")["files"]["index"]["derived"] for served in (first, second)]
    assert entries[0] != entries[1]
    store.rollback("0001")
    assert _facts(store.release())["target"] == store.release().recall == 0.9


def test_an_exact_index_does_not_depend_on_the_recall(store: Store) -> None:
    assert store.publish(allow_stale=True, recall=0.5).name == "0002"


def test_a_recall_that_is_not_reached_makes_no_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.create(tmp_path / "store", shop.TOML)
    shop.upsert(store, shop.catalogue(N))
    shop.materialize(store, "vector")
    monkeypatch.setattr(tuning, "SHORTLISTS", (10,))
    with pytest.raises(Stale, match="feature 'vector': recall@10"):
        store.publish(allow_stale=True, recall=1.0)
    assert release.names(store.root) == []
    with pytest.raises(BadInput, match="recall of 2"):
        store.publish(allow_stale=True, recall=2)


def test_a_kind_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="index"):
        Store.create(
            tmp_path / "store", shop.TOML.replace("[features.vector]\n", '[features.vector]\nindex = "x"\n')
        )


@pytest.mark.parametrize("file", ["index", "lengths"])
def test_a_lost_or_cut_file_of_an_index_is_named(store: Store, file: str) -> None:
    served = store.release("0001")
    path = served.paths("vector")[file]
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-8])
        with pytest.raises(Conflict, match=path.name):
            store.release("0001").index("vector")
        path.unlink()
        with pytest.raises(NotFound, match=path.name):
            store.release("0001").index("vector")
    finally:
        path.write_bytes(whole)


def test_the_vectors_are_looked_at_where_they_lie(store: Store) -> None:
    served = store.release("0001")
    index = served.index("vector")
    assert isinstance(index.vectors.base, np.memmap)
    stored = served.facts("vector")["files"]
    assert stored["index"]["bytes"] + stored["lengths"]["bytes"] < 2 * stored["values"]["bytes"]


# ---- filters


def _filter(rng: np.random.Generator, depth: int = 0) -> str:
    """A condition of the grammar, on any column, of any selectivity from nothing to everything."""
    share = float(rng.choice([0.0001, 0.001, 0.01, 0.1, 0.3, 0.7, 1.0]))
    price = round(rng.uniform(0, 1 - share) * N)
    number = int(rng.integers(N))
    named = ", ".join(f"'i{other:03d}'" for other in rng.integers(0, N, int(rng.integers(1, 40))))
    kinds = [
        f"price >= {price} AND price < {price + max(1, round(share * N))}",
        f"price BETWEEN {price} AND {price + round(share * N)}.5",
        f"item_id IN ({named})",
        f"title LIKE 'Thing {number % 100}%'",
        f"contains(tags, 't{number % 5}')",
        f"{'NOT ' if number % 2 else ''}'even' IN tags",
        "price IS NULL",
        f"price <> {price}",
        "image IS NOT NULL",
    ]
    said = kinds[int(rng.integers(len(kinds)))]
    if depth < 2 and rng.random() < 0.4:
        word = "AND" if rng.random() < 0.5 else "OR"
        said = f"({said}) {word} {'NOT ' if rng.random() < 0.3 else ''}({_filter(rng, depth + 1)})"
    return said


@pytest.fixture(scope="module")
def asked(root: Path) -> list[tuple[str, int, np.ndarray]]:
    """Filters, each with a query's row and the rows that DuckDB finds by scanning the catalogue."""
    rng = np.random.default_rng(7)
    catalogue = Store.open(root).release().catalogue  # noqa: F841, DuckDB reads it by its name
    found = []
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.execute("CREATE TABLE scanned AS SELECT * FROM catalogue ORDER BY item_id")
        for _ in range(FILTERS):
            said = _filter(rng)
            spelled = said.replace("'even' IN tags", "list_contains(tags, 'even')")
            rows = connection.execute(
                f"SELECT coalesce({spelled}, false) AS keep FROM scanned ORDER BY item_id"
            ).fetchnumpy()["keep"]
            found.append((said, int(rng.integers(N)), np.flatnonzero(rows)))
    return found


def _truth(served: Release, row: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best ten of `rows` but for `row`, by cosines in double, ties by row."""
    unit = shop.unit(served.matrix("vector").values)
    unit = unit.astype(np.float32).astype(np.float64)
    rows = rows[rows != row]
    scores = (unit[rows] @ unit[row]).astype(np.float32)
    order = np.lexsort((rows, -scores))[:K]
    return scores[order], rows[order]


def test_filters_of_every_selectivity_are_drawn(asked: list[tuple[str, int, np.ndarray]]) -> None:
    shares = np.array([len(rows) / N for _, _, rows in asked])
    for low, high in ((0, 0.0009), (0.0009, 0.01), (0.01, 0.1), (0.1, 0.5), (0.5, 0.95), (0.95, 1.01)):
        assert np.count_nonzero((low <= shares) & (shares < high)) >= 20, (low, high)


def test_a_thousand_filters_give_what_a_scan_gives_where_the_index_is_exact(
    store: Store, asked: list[tuple[str, int, np.ndarray]]
) -> None:
    served = store.release("0002")
    for where, row, rows in asked:
        scores, found = nearest(served, "vector", row=row, where=where, k=K)
        expected_scores, expected = _truth(served, row, rows)
        assert found.tolist() == expected.tolist(), where
        assert scores == pytest.approx(expected_scores, abs=1e-6)


def test_a_thousand_filters_give_allowed_rows_only_and_the_recall_where_it_is_approximate(
    store: Store, asked: list[tuple[str, int, np.ndarray]]
) -> None:
    served = store.release("0001")
    assert not served.index("vector").exact
    shares = []
    for where, row, rows in asked:
        scores, found = nearest(served, "vector", row=row, where=where, k=K)
        expected, _ = _truth(served, row, rows)
        assert len(found) == len(expected), where
        assert set(found.tolist()) <= set(rows.tolist()) - {row}, where
        if len(expected):
            shares.append(np.count_nonzero(scores >= expected[-1] - 1e-6) / len(expected))
    assert np.mean(shares) >= 0.99
    assert len(shares) > FILTERS / 2


def test_a_forced_exact_search_of_an_approximate_index_gives_the_same_rows(
    store: Store, asked: list[tuple[str, int, np.ndarray]]
) -> None:
    approximate, exact = store.release("0001"), store.release("0002")
    for where, row, _ in asked[:100]:
        forced = nearest(approximate, "vector", row=row, where=where, k=K, exact=True)
        true = nearest(exact, "vector", row=row, where=where, k=K)
        assert forced[1].tolist() == true[1].tolist()
        assert forced[0].tolist() == true[0].tolist()
