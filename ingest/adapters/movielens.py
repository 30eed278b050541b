"""MovieLens, by GroupLens: 100K (u.item, u.data), 1M and 10M (movies.dat, ratings.dat), and the csv releases (latest,
20M, 25M, 32M: movies.csv, ratings.csv, and where they are there links.csv and tags.csv).

The title stays as it stands, with its year, which is a column too. What is known of users is left out: the store holds
items and events. The layout is that of each release's README.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.schema import ITEM_ID, TITLE, USER_ID
from ingest.adapters.base import Adapted, Adapter, find, joined, needed, replaced, with_pictures
from ingest.adapters.lines import read_matching
from ingest.mapping import ColumnSpec, Mapping, SourceMapping
from ingest.raw import Raw
from ingest.readers.csv import read_csv

GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
NO_GENRE = ("", "unknown", "(no genres listed)")
YEAR = r"\((?P<year>\d{4})\)\s*$"
TYPED = {"genres": ColumnSpec(type="list", separator="|"), "year": ColumnSpec(type="integer")}


def read_100k(folder: Path, images: Path | None) -> Adapted:
    items = read_matching(
        needed(folder, "u.item"),
        r"(?P<item_id>[^|]*)\|(?P<title>.*)\|(?P<release_date>[^|]*)\|[^|]*\|(?P<url>[^|]*)\|"
        r"(?P<genres>[01](?:\|[01]){18})",
        "id|title|release date|video release date|URL|19 genres as 0 or 1",
    )
    flags = [text.split("|") for text in items.table["genres"].to_pylist()]
    named = ["|".join(g for g, flag in zip(GENRES_100K, row, strict=True) if flag == "1") for row in flags]
    place = items.table.schema.get_field_index("genres")
    items = replaced(items, items.table.set_column(place, "genres", pa.array(named, pa.string())))
    events = read_matching(
        needed(folder, "u.data"),
        r"(?P<user_id>[^\t]*)\t(?P<item_id>[^\t]*)\t(?P<rating>[^\t]*)\t(?P<timestamp>[^\t]*)",
        "user id, item id, rating and timestamp with tabs between",
    )
    return _adapted(items, events, images)


def read_1m(folder: Path, images: Path | None) -> Adapted:
    items = read_matching(
        needed(folder, "movies.dat"),
        r"(?P<item_id>.*?)::(?P<title>.*)::(?P<genres>[^:]*)",  # a title may hold :: itself
        "MovieID::Title::Genres",
    )
    events = read_matching(
        needed(folder, "ratings.dat"),
        r"(?P<user_id>[^:]*)::(?P<item_id>[^:]*)::(?P<rating>[^:]*)::(?P<timestamp>[^:]*)",
        "UserID::MovieID::Rating::Timestamp",
    )
    return _adapted(items, events, images)


def read_latest(folder: Path, images: Path | None) -> Adapted:
    plain = SourceMapping()
    items = read_csv(needed(folder, "movies.csv"), plain)
    events = read_csv(needed(folder, "ratings.csv"), plain)
    beside: list[Raw] = []
    if (links := find(folder, "links.csv")) is not None:
        raw = read_csv(links, plain)
        beside.append(raw)
        if {"movieId", "imdbId"} <= set(raw.table.column_names):
            items = joined(items, "movieId", raw.table.select(["movieId", "imdbId"]), "movieId")
    if (tags := find(folder, "tags.csv")) is not None:
        raw = read_csv(tags, plain)
        beside.append(raw)
        items = joined(items, "movieId", _tags(raw.table), "movieId")
    adapted = _adapted(items, events, images, rename={"movieId": ITEM_ID, "imdbId": "imdb_id"}, ids="movieId")
    return Adapted(adapted.items, events, adapted.mapping, adapted.images, tuple(beside), adapted.notes)


def _tags(table: pa.Table) -> pa.Table:
    """movieId and its tags, those that most users gave first; upper and lower case count as the same."""
    table = pa.table(
        {"movieId": table["movieId"], "tag": pc.utf8_lower(pc.utf8_trim_whitespace(table["tag"]))}
    )
    table = table.filter(pc.and_(pc.not_equal(table["tag"], ""), table["movieId"].is_valid()))
    counted = table.group_by(["movieId", "tag"]).aggregate([([], "count_all")])
    counted = counted.sort_by([("movieId", "ascending"), ("count_all", "descending"), ("tag", "ascending")])
    ids = counted["movieId"].combine_chunks()
    starts = np.flatnonzero(
        np.r_[True, pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)][: len(ids)]
    )
    offsets = pa.array(np.r_[starts, len(ids)], pa.int32())
    lists = pa.ListArray.from_arrays(offsets, counted["tag"].combine_chunks())
    return pa.table({"movieId": ids.take(pa.array(starts)), "tags": lists})


def _adapted(
    items: Raw,
    events: Raw,
    images: Path | None,
    rename: dict[str, str] | None = None,
    ids: str = ITEM_ID,
) -> Adapted:
    """The common end: genres as a list, the year, pictures, and our names for the columns."""
    table = items.table
    none = pc.is_in(table["genres"], value_set=pa.array(NO_GENRE))
    table = table.set_column(
        table.schema.get_field_index("genres"), "genres", pc.if_else(none, None, table["genres"])
    )
    years = pc.struct_field(pc.extract_regex(table[TITLE], YEAR), "year")
    items = replaced(items, table.append_column("year", years))
    items = with_pictures(items, images, ids)
    names = {ours: theirs for ours, theirs in (rename or {}).items() if ours in items.table.column_names}
    columns = dict(TYPED)
    if "imdbId" in items.table.column_names:
        columns["imdb_id"] = ColumnSpec(type="string")  # 0114709 is a code, not a number
    log = {"userId": USER_ID, "movieId": ITEM_ID} if rename else {}
    mapping = Mapping(rename=names, columns=columns, interactions=SourceMapping(rename=log))
    return Adapted(items, events, mapping, images)


ADAPTERS = (
    Adapter(
        "movielens-100k",
        "u.item, u.data",
        lambda folder: find(folder, "u.item") is not None,
        read_100k,
    ),
    Adapter(
        "movielens-1m",
        "movies.dat, ratings.dat (1M and 10M)",
        lambda folder: find(folder, "movies.dat") is not None,
        read_1m,
    ),
    Adapter(
        "movielens-latest",
        "movies.csv, ratings.csv (latest, 20M, 25M, 32M)",
        lambda folder: find(folder, "movies.csv") is not None and find(folder, "ratings.csv") is not None,
        read_latest,
    ),
)
