"""What the explorer's map is drawn from: the projection of a feature, and what its points are coloured by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from featurestore.errors import BadInput, NotFound
from featurestore.release import Release
from featurestore.store import Store
from recommender.serve import columns, projection
from recommender.serve.projection import catalogue_map, project

GENRES = ["Drama|War", "Drama", "Comedy | Drama", None]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """40 items of five words each, of which one column is joined by bars and one holds numbers."""
    from ingest.load import ingest
    from ingest.materialize import materialize

    toml = '[features.text]\nkind = "embed_text"\ninputs = ["text"]\nencoder = "tfidf_svd"\n'
    store = Store.create(tmp_path_factory.mktemp("explorer") / "store", toml)
    words = ["river", "castle", "robot", "garden"]
    items = {
        "item_id": [f"i{n:02}" for n in range(40)],
        "title": [f"{words[n % 4]} number {n}" for n in range(40)],
        "genres": [GENRES[n % 4] for n in range(40)],
        "year": [None if n == 7 else 1990 + n for n in range(40)],
        "image": [None] * 40,
    }
    ingest(store, pa.table(items))
    materialize(store)
    store.publish()
    return store.release()


def test_groups_that_are_apart_stay_apart_in_either_layout() -> None:
    made = np.random.default_rng(0)
    centres = made.standard_normal((3, 32)) * 4
    vectors = np.concatenate([centres[n] + made.standard_normal((60, 32)) for n in range(3)]).astype(
        np.float32
    )
    for layout in projection.LAYOUTS:
        points, explained = project(vectors, layout)
        assert points.shape == (180, 2)
        assert np.abs(points).max() == pytest.approx(1)
        middles = points.reshape(3, 60, 2).mean(1)
        spread = max(points.reshape(3, 60, 2).std(1).max(), 1e-9)
        gaps = [np.linalg.norm(middles[a] - middles[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
        assert min(gaps) > 2 * spread, layout
        assert (explained is None) == (layout == "neighbours")


def test_items_that_are_no_landmark_lie_among_their_own_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "LANDMARKS", 40)
    made = np.random.default_rng(1)
    centres = made.standard_normal((2, 16)) * 5
    kind = np.arange(200) % 2
    vectors = (centres[kind] + made.standard_normal((200, 16))).astype(np.float32)
    points, _ = project(vectors, "neighbours")
    middles = np.stack([points[kind == n].mean(0) for n in (0, 1)])
    nearest = np.linalg.norm(points[:, None] - middles, axis=2).argmin(1)
    assert (nearest == kind).all()


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_vectors_that_are_all_alike_lie_on_one_point(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.full((30, 16), value, np.float32)
    for layout in projection.LAYOUTS:
        points, explained = project(vectors, layout)
        assert (points.any(), explained) == (False, None)
    monkeypatch.setattr(projection, "LANDMARKS", 10)
    most = np.full((2000, 16), 0.3, np.float32)
    most[0] = np.eye(16)[3]  # one that is another, and no landmark
    assert 0 not in np.random.default_rng(0).permutation(2000)[:10]
    assert np.isfinite(project(most, "neighbours")[0]).all()


def test_the_same_vectors_give_the_same_map_and_a_few_are_no_trouble() -> None:
    vectors = np.random.default_rng(2).standard_normal((90, 20)).astype(np.float32)
    for layout in projection.LAYOUTS:
        assert np.array_equal(project(vectors, layout)[0], project(vectors.copy(), layout)[0])
        for n in range(9):
            points, _ = project(vectors[:n], layout)
            assert points.shape == (n, 2)
            assert np.isfinite(points).all()


def test_a_map_is_kept_in_the_cache_and_made_again_where_it_was_damaged(release: Release) -> None:
    made = catalogue_map(release, "text")
    (kept,) = (release.root / "cache" / "maps").glob("*.npy")
    before = kept.stat().st_mtime_ns
    again = catalogue_map(release, "text")
    assert np.array_equal(made.points, again.points)
    assert again.explained == pytest.approx(made.explained, rel=1e-6)
    assert kept.stat().st_mtime_ns == before
    kept.write_bytes(kept.read_bytes()[:50])
    assert np.array_equal(catalogue_map(release, "text").points, made.points)
    assert len(made.rows) == release.n_items


def test_a_store_that_cannot_be_written_still_has_a_map(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(13, "read-only", str(path))

    for kept in (release.root / "cache" / "maps").glob("*.npy"):
        kept.unlink()
    monkeypatch.setattr(projection.files, "replacing", refused)
    assert len(catalogue_map(release, "text").points) == release.n_items
    assert not list((release.root / "cache" / "maps").glob("*.npy"))


def test_an_unknown_layout_or_feature_is_refused_with_what_there_is(release: Release) -> None:
    with pytest.raises(BadInput, match="unknown layout 'tsne'") as layout:
        catalogue_map(release, "text", "tsne")  # type: ignore[arg-type]
    assert "neighbours" in str(layout.value.remedy)
    with pytest.raises(NotFound, match="no feature 'txt'") as feature:
        catalogue_map(release, "txt")
    assert "text" in str(feature.value.remedy)


def test_columns_say_what_a_filter_and_a_colour_can_be(release: Release) -> None:
    found = {column.name: column for column in columns.columns(release)}
    assert set(found) == {"title", "genres", "year"}
    assert found["genres"].common == ["Drama", "Comedy"]
    assert (found["year"].least, found["year"].greatest) == (1990, 2029)
    assert [name for name, column in found.items() if column.grouped] == ["genres", "year"]


def test_an_item_is_coloured_by_the_first_of_its_values(release: Release) -> None:
    told = columns.colours(release, "genres")
    assert told.groups == [("Drama", 20), ("Comedy", 10)]
    assert told.codes is not None
    assert told.codes[:4].tolist() == [0, 0, 1, -1]
    years = columns.colours(release, "year")
    assert years.values is not None
    assert years.values[0] == 1990
    assert np.isnan(years.values[7])
    with pytest.raises(NotFound, match="coloured by 'title'"):
        columns.colours(release, "title")


def test_lists_and_yes_or_no_are_groups_too_and_rare_values_are_others() -> None:
    lists = columns._column("tags", pa.chunked_array([[["a", "b"], [], None, ["a"], ["b", "a"]]]))
    assert (lists.kind, lists.common, lists.grouped) == ("list", ["a", "b"], True)
    yes = columns._column("stock", pa.chunked_array([[True, False, True, None]]))
    assert (yes.kind, yes.common, yes.grouped) == ("yes or no", ["true", "false"], True)
    alone = columns._column("sku", pa.chunked_array([["a", "b", "c"]]))
    assert not alone.grouped
    empty = columns._column("nothing", pa.chunked_array([pa.nulls(3, pa.string())]))
    assert not empty.grouped
    assert not columns._column("none", pa.chunked_array([pa.nulls(3, pa.int64())])).grouped
