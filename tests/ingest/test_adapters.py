"""Public data sets: small files written by hand in the layout of the originals, with what goes wrong in them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from featurestore.errors import BadInput
from featurestore.store import Store
from ingest import adapters
from ingest.load import IngestReport, ingest


def write(path: Path, content: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def jsonl(path: Path, *rows: dict[str, Any] | str) -> None:
    write(path, "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))


def items(store: Store) -> dict[str, dict[str, Any]]:
    table = store.tables.read("items", filter="_deleted IS NOT TRUE")
    return {
        row["item_id"]: {k: v for k, v in row.items() if k[0] != "_" and k != "item_id"}
        for row in table.to_pylist()
    }


def events(store: Store) -> list[tuple[Any, ...]]:
    columns = ["user_id", "item_id", "timestamp", "position", "value"]
    rows = store.tables.read("interactions", columns=columns).to_pylist()
    return sorted(tuple(row[name] for name in columns) for row in rows)


def places(store: Store) -> dict[str, list[str]]:
    """code -> FILE:LINE of what was set aside."""
    return {g.code: sorted(e.place.rsplit("/", 1)[-1] for e in g.examples) for g in store.errors(examples=9)}


def read(store: Store, folder: Path, format: str, **options: Any) -> IngestReport:
    report = ingest(store, folder, format=format, **options)
    again = ingest(store, folder, format=format, **options)
    assert not again.wrote, "a second reading of the same files writes nothing"
    return report


# ---- MovieLens

FLAGS = "|".join("1" if place in (3, 4, 5) else "0" for place in range(19))


@pytest.fixture
def ml100k(tmp_path: Path) -> Path:
    folder = tmp_path / "ml-100k"
    lines = [
        f"1|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Toy%20Story%20(1995)|{FLAGS}",
        f"2|Misérables, Les (1995)|01-Jan-1995|||{FLAGS}",
        "267|unknown||||" + "1|" + "|".join("0" * 18),
    ]
    write(folder / "u.item", "\n".join(lines), "latin-1")
    write(
        folder / "u.data", "196\t1\t3\t881250949\n186\t2\t4\t891717742\nbroken line\n196\t267\t1\t881250950"
    )
    return folder


def test_movielens_100k_is_read_with_genres_as_a_list_and_latin1_titles(store: Store, ml100k: Path) -> None:
    report = read(store, ml100k, "movielens-100k")
    found = items(store)
    assert found["1"]["genres"] == ["Animation", "Children's", "Comedy"]
    assert found["1"]["year"] == 1995
    assert found["2"]["title"] == "Misérables, Les (1995)"
    assert found["267"]["genres"] is None
    assert found["267"]["year"] is None
    assert events(store)[-1] == ("196", "267", 881250950, None, 1.0), "the last line has no line end"
    assert report.quarantined == {"bad_line": 1}
    assert places(store) == {"bad_line": ["u.data:3"]}


@pytest.fixture
def ml1m(tmp_path: Path) -> Path:
    folder = tmp_path / "ml-1m"
    titles = "1::Toy Story (1995)::Animation|Children's|Comedy\r\n2::Face::Off :: Café (1997)::Action\r\n"
    write(folder / "movies.dat", titles, "latin-1")
    write(
        folder / "ratings.dat",
        "1::1::5::978300760\n\n1::2::4::978300761\n2::9::4::978300762\n2::1::x::978300763",
    )
    write(folder / "users.dat", "1::F::1::10::48067")
    return folder


def test_a_movielens_title_may_hold_the_separator(store: Store, ml1m: Path) -> None:
    read(store, ml1m, "movielens-1m")
    found = items(store)
    assert found["2"]["title"] == "Face::Off :: Café (1997)"
    assert found["2"]["genres"] == ["Action"]
    assert [e[:3] for e in events(store)] == [
        ("1", "1", 978300760),
        ("1", "2", 978300761),
        ("2", "1", 978300763),
    ]
    assert places(store) == {"unknown_item": ["ratings.dat:4"], "bad_value": ["ratings.dat:5"]}


def test_movielens_10m_has_the_same_layout_in_utf8(store: Store, ml1m: Path) -> None:
    write(ml1m / "movies.dat", "1::Amélie (2001)::Comedy|Romance\n")
    ingest(store, ml1m, format="movielens-1m")
    assert items(store)["1"]["title"] == "Amélie (2001)"


@pytest.fixture
def latest(tmp_path: Path) -> Path:
    folder = tmp_path / "ml-latest-small"
    movies = (
        "movieId,title,genres\n1,Toy Story (1995),Adventure|Comedy\n"
        '11,"American President, The ""uncut"" (1995)",Drama\n'
        "12,Nameless,(no genres listed)\n13,too,many,cells\n"
    )
    write(folder / "movies.csv", movies)
    write(folder / "ratings.csv.gz", "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,11,0.5,964982224")
    write(folder / "links.csv", "movieId,imdbId,tmdbId\n1,0114709,862\n11,0112346,\n")
    tags = "userId,movieId,tag,timestamp\n1,1,pixar,1\n2,1,Pixar,2\n3,1,fun,3\n4,99,nothing,4\n5,1\n"
    write(folder / "tags.csv", tags)
    return folder


def test_movielens_csv_joins_links_and_the_tags_most_users_gave_first(store: Store, latest: Path) -> None:
    read(store, latest, "movielens-latest")
    found = items(store)
    assert found["1"]["tags"] == ["pixar", "fun"]
    assert found["11"]["tags"] is None
    assert found["1"]["imdb_id"] == "0114709"
    assert found["11"]["title"] == 'American President, The "uncut" (1995)'
    assert found["12"]["genres"] is None
    assert [e[4] for e in events(store)] == [4.0, 0.5]
    assert places(store) == {"column_count": ["movies.csv:5", "tags.csv:6"]}


# ---- Amazon


@pytest.fixture
def amazon2018(tmp_path: Path) -> Path:
    folder = tmp_path / "beauty"
    product = {
        "asin": "B0001",
        "title": "Crème \u201cPure\u201d",
        "brand": "Acme",
        "main_cat": "All Beauty",
        "category": ["Beauty", "Skin"],
        "description": ["First.", "", "Second."],
        "feature": None,
        "price": "$1,012.99",
        "imageURLHighRes": ["https://images.example/1.jpg"],
        "also_buy": ["B0002"],
    }
    jsonl(
        folder / "meta_All_Beauty.json.gz",
        product,
        product | {"title": "again"},
        product | {"asin": "B0002", "price": "", "imageURLHighRes": None, "description": "plain"},
        product | {"asin": "B0003", "price": ".a-box-inner{background-color:#fff}", "category": {"a": 1}},
        "{'asin': 'B0004'}",
        product | {"asin": None},
    )
    review = {"overall": 5.0, "reviewerID": "A1", "asin": "B0001", "unixReviewTime": 1424304000}
    jsonl(
        folder / "All_Beauty_5.json.gz",
        review | {"reviewText": "fine", "summary": "ok"},
        review | {"asin": "B0002", "overall": 1.0},
        review | {"asin": "B0002", "unixReviewTime": "yesterday"},
    )
    return folder


def test_amazon_2018_is_read_packed_with_prices_as_numbers(store: Store, amazon2018: Path) -> None:
    read(store, amazon2018, "amazon-2018")
    found = items(store)
    assert list(found) == ["B0001", "B0002", "B0003"]
    assert found["B0001"]["title"] == "Crème “Pure”", "of two rows of one id the first counts"
    assert found["B0001"]["price"] == 1012.99
    assert found["B0002"]["price"] is None
    assert found["B0001"]["description"] == "First.\nSecond."
    assert found["B0002"]["description"] == "plain"
    assert found["B0001"]["categories"] == ["Beauty", "Skin"]
    assert found["B0003"]["categories"] is None
    assert found["B0001"]["image_url"] == "https://images.example/1.jpg"
    assert found["B0002"]["image_url"] is None
    assert found["B0001"]["image"] is None, "a URL is never fetched"
    assert events(store) == [("A1", "B0001", 1424304000, None, 5.0), ("A1", "B0002", 1424304000, None, 1.0)]
    assert places(store) == {
        "duplicate_id": ["meta_All_Beauty.json.gz:2"],
        "bad_value": ["meta_All_Beauty.json.gz:4", "meta_All_Beauty.json.gz:4"],
        "bad_json": ["meta_All_Beauty.json.gz:5"],
        "missing_id": ["meta_All_Beauty.json.gz:6"],
        "bad_timestamp": ["All_Beauty_5.json.gz:3"],
    }


@pytest.fixture
def amazon2023(tmp_path: Path) -> Path:
    folder = tmp_path / "beauty23"
    product = {
        "main_category": "All Beauty",
        "title": "Soap",
        "average_rating": 4.8,
        "features": ["mild"],
        "description": [],
        "price": 9.5,
        "images": [
            {"thumb": "t", "large": "l2", "hi_res": None, "variant": "PT01"},
            {"thumb": "t", "large": "l", "hi_res": "https://images.example/h.jpg", "variant": "MAIN"},
        ],
        "categories": [],
        "details": {"Brand": "Acme", "Pieces": 2},
        "parent_asin": "P1",
    }
    as_lists = {
        "hi_res": [None],
        "large": ["https://images.example/l.jpg"],
        "thumb": ["t"],
        "variant": ["MAIN"],
    }
    jsonl(
        folder / "meta_All_Beauty.jsonl",
        product,
        product | {"parent_asin": "P2", "price": None, "images": None, "details": '{"Brand": "B"}'},
        product | {"parent_asin": "P3", "price": "from 13.35", "images": as_lists, "details": "not json"},
    )
    review = {"rating": 4.0, "user_id": "U", "asin": "X1", "parent_asin": "P1", "timestamp": 1588687728923}
    jsonl(folder / "All_Beauty.jsonl", review, review | {"parent_asin": "P2", "timestamp": 999})
    return folder


def test_amazon_2023_takes_the_parent_product_and_milliseconds(store: Store, amazon2023: Path) -> None:
    read(store, amazon2023, "amazon-2023")
    found = items(store)
    assert found["P1"]["image_url"] == "https://images.example/h.jpg"
    assert found["P2"]["image_url"] is None
    assert found["P3"]["image_url"] == "https://images.example/l.jpg"
    assert found["P1"]["details"] == ["Brand: Acme", "Pieces: 2"]
    assert found["P2"]["details"] == ["Brand: B"]
    assert [found[i]["price"] for i in ("P1", "P2", "P3")] == [9.5, None, None]
    assert events(store) == [("U", "P1", 1588687728, None, 4.0), ("U", "P2", 0, None, 4.0)]
    assert "average_rating" not in found["P1"], "it sums up reviews that a model must not have seen"
    assert places(store) == {"bad_value": ["meta_All_Beauty.jsonl:3"] * 2}


@pytest.mark.parametrize(
    "odd",
    [
        {"images": 5},
        {"images": {"hi_res": None, "large": "https://images.example/l.jpg"}},
        {"images": [None, 3, {"hi_res": 7}]},
        {"details": '{"Brand": "\\ud800"}'},
        {"details": {"Brand": [None, {"a": float("nan")}]}},
        {"details": [1]},
    ],
    ids=str,
)
def test_an_odd_value_costs_that_value_and_never_the_file(
    store: Store, tmp_path: Path, odd: dict[str, Any]
) -> None:
    product = {"parent_asin": "P1", "title": "Soap"}
    jsonl(tmp_path / "x" / "meta_A.jsonl", product | odd, {"parent_asin": "P2", "title": "Brush"})
    read(store, tmp_path / "x", "amazon-2023")
    assert sorted(items(store)) == ["P1", "P2"]
    assert items(store)["P1"].get("image_url") is None


def test_an_archive_that_is_cut_short_is_refused_as_a_whole(store: Store, amazon2018: Path) -> None:
    packed = amazon2018 / "All_Beauty_5.json.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(BadInput, match=r"All_Beauty_5\.json\.gz is not a whole gzip file"):
        ingest(store, amazon2018, format="amazon-2018")
    assert store.tables.names() == []


def test_one_category_a_folder(amazon2018: Path) -> None:
    jsonl(amazon2018 / "meta_Toys.json", {"asin": "T"})
    with pytest.raises(BadInput, match=r"one catalogue.*meta_All_Beauty.json.gz, meta_Toys.json"):
        adapters.read(amazon2018, "amazon-2018")


def test_a_catalogue_without_reviews_is_read_and_said(store: Store, amazon2023: Path) -> None:
    (amazon2023 / "All_Beauty.jsonl").unlink()
    report = ingest(store, amazon2023, format="amazon-2023")
    assert report.events is None
    assert "no file of reviews" in report.notes[0]


# ---- MicroLens


@pytest.fixture
def microlens(tmp_path: Path) -> Path:
    folder = tmp_path / "MicroLens-50k"
    write(folder / "MicroLens-50k_titles.csv", 'item,title\n1,"a, b #tag"\n2,Second\n3,\n')
    write(
        folder / "MicroLens-50k_pairs.csv", "user,item,timestamp\n7,1,1583378629552\n7,2,1583378629999\n8,,1"
    )
    write(folder / "MicroLens-50k_likes_and_views.txt", "1\t10\t200\n2\tmany\t5\n")
    covers = folder / "MicroLens-50k_covers"
    covers.mkdir()
    Image.new("RGB", (8, 8), "red").save(covers / "1.jpg")
    (covers / "2.jpg").write_bytes(b"no picture")
    return folder


def test_microlens_is_read_with_covers_by_id(store: Store, microlens: Path) -> None:
    report = ingest(store, microlens, format="microlens")
    found = items(store)
    assert found["1"] == {"title": "a, b #tag", "likes": 10, "views": 200, "image": "1.jpg"}
    assert found["2"]["likes"] is None
    assert found["3"]["image"] is None
    assert report.images is not None
    assert (report.images.items, report.images.failed, report.images.none) == (1, 1, 1)
    assert [e[:3] for e in events(store)] == [("7", "1", 1583378629), ("7", "2", 1583378629)]
    assert places(store)["bad_value"] == ["MicroLens-50k_titles.csv:3"]
    assert places(store)["missing_id"] == ["MicroLens-50k_pairs.csv:4"]


def test_microlens_sequences_keep_their_order_as_positions(store: Store, microlens: Path) -> None:
    (microlens / "MicroLens-50k_pairs.csv").unlink()
    write(microlens / "MicroLens-50k_titles.csv", "1,first\n2,second\n3,third")  # the 100k's has no header
    write(microlens / "MicroLens-50k_pairs.tsv", "7\t3 1  2\n8\t2 9")
    ingest(store, microlens, format="microlens")
    assert items(store)["1"]["title"] == "first"
    assert [(e[0], e[1], e[3]) for e in events(store)] == [
        ("7", "1", 1),
        ("7", "2", 2),
        ("7", "3", 0),
        ("8", "2", 0),
    ]
    assert places(store)["unknown_item"] == ["MicroLens-50k_pairs.tsv:2"]


# ---- which format


@pytest.mark.parametrize(
    ("fixture", "format"),
    [
        ("ml100k", "movielens-100k"),
        ("ml1m", "movielens-1m"),
        ("latest", "movielens-latest"),
        ("amazon2018", "amazon-2018"),
        ("amazon2023", "amazon-2023"),
        ("microlens", "microlens"),
    ],
)
def test_a_format_is_told_by_its_files(fixture: str, format: str, request: pytest.FixtureRequest) -> None:
    assert adapters.detect(request.getfixturevalue(fixture)).name == format


def test_an_unknown_folder_names_what_was_looked_for_and_the_folder_inside(
    tmp_path: Path, ml1m: Path
) -> None:
    with pytest.raises(BadInput, match="no known format") as refused:
        adapters.read(tmp_path, "auto")
    assert "u.item, u.data" in str(refused.value)
    assert "ml-1m" in str(refused.value)


def test_a_misspelt_format_is_answered_with_the_nearest(ml1m: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'movielens-1m'"):
        adapters.read(ml1m, "movielens1m")


def test_pictures_are_found_by_id_and_a_folder_of_others_is_refused(
    store: Store, ml1m: Path, tmp_path: Path
) -> None:
    posters = tmp_path / "posters"
    (posters / "part").mkdir(parents=True)
    with pytest.raises(BadInput, match="named after an item"):
        ingest(store, ml1m, format="movielens-1m", images_root=posters)
    Image.new("RGB", (8, 8), "blue").save(posters / "part" / "2.png")
    ingest(store, ml1m, format="movielens-1m", images_root=posters)
    assert {i: row["image"] for i, row in items(store).items()} == {"1": None, "2": "part/2.png"}
    ingest(store, ml1m, format="movielens-1m")
    assert items(store)["2"]["image"] == "part/2.png", "what is not said is not taken away"


def test_a_file_of_another_shape_is_refused(ml1m: Path) -> None:
    write(ml1m / "ratings.dat", "1,1,5,978300760\n")
    with pytest.raises(BadInput, match=r"no line of .*ratings.dat has the shape UserID::MovieID"):
        adapters.read(ml1m, "movielens-1m")


def test_a_format_names_the_log_itself(store: Store, ml1m: Path) -> None:
    with pytest.raises(BadInput, match="finds the log"):
        ingest(store, ml1m, ml1m / "ratings.dat", format="movielens-1m")


def test_a_data_set_given_without_its_format_is_told_it(store: Store, ml1m: Path) -> None:
    with pytest.raises(BadInput, match="--format movielens-1m"):
        ingest(store, ml1m)


def test_auto_says_what_it_took_the_folder_for(store: Store, ml1m: Path) -> None:
    assert "was read as movielens-1m" in ingest(store, ml1m, format="auto").notes[0]
