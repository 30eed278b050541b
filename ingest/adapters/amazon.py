"""Amazon Reviews of the McAuley Lab, 2018 and 2023: meta_CATEGORY and CATEGORY as JSON lines, packed or not.

A folder holds one category. Pictures are named as URLs there: the first one's is kept as `image_url` and never fetched;
what was downloaded is named by `images`, as ID.jpg. Of the reviews who, what, when and the rating are taken. What sums
up all reviews (average_rating, rating_number, rank, also_buy) is left out: it knows of events that no model may see.

2018: asin, title, brand, main_cat, category, description, feature, price, imageURLHighRes; reviewerID, overall,
unixReviewTime. 2023: parent_asin is the item (its variants share reviews), store, main_category, categories, features,
details, images; user_id, rating, timestamp in milliseconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore.errors import BadInput
from ingest.adapters.base import Adapted, Adapter, listing, with_pictures
from ingest.adapters.objects import (
    Column,
    Object,
    Unfit,
    first_object,
    paragraphs,
    read_objects,
    text,
    texts,
)
from ingest.mapping import ColumnSpec, Mapping, SourceMapping

SUFFIXES = (".json", ".jsonl")
META = "meta_"
PRICE = ColumnSpec(type="number")


def read_2018(folder: Path, images: Path | None) -> Adapted:
    columns = {
        "item_id": text("asin"),
        "title": text("title"),
        "brand": text("brand"),
        "main_category": text("main_cat"),
        "categories": texts("category"),
        "features": texts("feature"),
        "description": paragraphs("description"),
        "price": text("price"),
        "image_url": Column(pa.string(), _first_url),
    }
    events = {
        "user_id": text("reviewerID"),
        "item_id": text("asin"),
        "rating": text("overall"),
        "timestamp": text("unixReviewTime"),
    }
    return _read(folder, images, columns, events, "s")


def read_2023(folder: Path, images: Path | None) -> Adapted:
    columns = {
        "item_id": text("parent_asin", "asin"),
        "title": text("title"),
        "store": text("store"),
        "main_category": text("main_category"),
        "categories": texts("categories"),
        "features": texts("features"),
        "details": Column(pa.list_(pa.string()), _details),
        "description": paragraphs("description"),
        "price": text("price"),
        "image_url": Column(pa.string(), _main_image),
    }
    events = {
        "user_id": text("user_id"),
        "item_id": text("parent_asin", "asin"),
        "rating": text("rating"),
        "timestamp": text("timestamp"),
    }
    return _read(folder, images, columns, events, "ms")


def _read(
    folder: Path, images: Path | None, columns: dict[str, Column], events: dict[str, Column], unit: Any
) -> Adapted:
    meta, reviews = _files(folder)
    items = with_pictures(read_objects(meta, columns, frozenset({"price"})), images)
    log = None
    notes: list[str] = []
    if reviews is None:
        notes.append(f"{folder} has no file of reviews beside {meta.name}: only the catalogue was read")
    else:
        log = read_objects(reviews, events, frozenset({"rating", "timestamp"}))
    mapping = Mapping(
        columns={"price": PRICE},
        interactions=SourceMapping(columns={"timestamp": ColumnSpec(unit=unit)}),
    )
    return Adapted(items, log, mapping, images, notes=tuple(notes))


def _files(folder: Path) -> tuple[Path, Path | None]:
    """(catalogue, reviews or None) of the one category in a folder."""
    names = [name for name in listing(folder) if name.removesuffix(".gz").endswith(SUFFIXES)]
    catalogues = [name for name in names if name.startswith(META)]
    if len(catalogues) != 1:
        found = ", ".join(catalogues) or "none"
        raise BadInput(
            f"{folder} should hold one catalogue, meta_CATEGORY.json or .jsonl, packed or not (found: {found})",
            remedy="put one category's two files in a folder of their own",
        )
    category = catalogues[0].removeprefix(META).split(".")[0]
    reviews = [name for name in names if name.startswith(category)]  # CATEGORY_5 is the 5-core of it
    if len(reviews) > 1:
        raise BadInput(
            f"{folder} holds more than one file of reviews: {', '.join(reviews)}",
            remedy="leave the one that is to be read: a 5-core is part of the whole",
        )
    return folder / catalogues[0], folder / reviews[0] if reviews else None


def _first_url(row: Object) -> str | None:
    for name in ("imageURLHighRes", "imageURL"):
        urls = row.get(name)
        if isinstance(urls, list) and urls and isinstance(urls[0], str):
            return urls[0]
    return None


def _main_image(row: Object) -> str | None:
    """URL of the largest form of the main picture. images: [{hi_res, large, thumb, variant}], or one dict of lists."""
    images = row.get("images")
    if isinstance(images, dict):
        sizes = {size: urls for size, urls in images.items() if isinstance(urls, list)}
        images = [dict(zip(sizes, parts, strict=True)) for parts in zip(*sizes.values(), strict=False)]
    pictures = [image for image in images if isinstance(image, dict)] if isinstance(images, list) else []
    pictures.sort(key=lambda image: image.get("variant") != "MAIN")
    found = (image.get(size) for image in pictures for size in ("hi_res", "large", "thumb"))
    return next((url for url in found if isinstance(url, str) and url), None)


def _details(row: Object) -> list[str] | None:
    """ "Brand: Acme" and so on; an object, or one written as a text."""
    details = row.get("details")
    if isinstance(details, str):
        try:
            details = json.loads(details) if details.strip() else None
            json.dumps(details, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except ValueError as error:
            raise Unfit(f"details is a text that is no JSON ({error})") from None
    if details is None:
        return None
    if not isinstance(details, dict):
        raise Unfit(f"details is {json.dumps(details)[:80]}, which is no object")
    said = [
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in details.items()
        if value not in (None, "")
    ]
    return said or None


def _fits(folder: Path, key: str) -> bool:
    try:
        meta, _ = _files(folder)
    except BadInput:
        return False
    row = first_object(meta) or {}
    return ("parent_asin" if "parent_asin" in row else "asin" if "asin" in row else "") == key


ADAPTERS = (
    Adapter(
        "amazon-2018",
        "meta_CATEGORY.json(.gz), CATEGORY.json(.gz)",
        lambda folder: _fits(folder, "asin"),
        read_2018,
    ),
    Adapter(
        "amazon-2023",
        "meta_CATEGORY.jsonl(.gz), CATEGORY.jsonl(.gz)",
        lambda folder: _fits(folder, "parent_asin"),
        read_2023,
    ),
)
