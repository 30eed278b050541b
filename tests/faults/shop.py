"""A shop small enough to be killed a thousand times: thirty items with drawn pictures, two hundred events.

It has two states. `open_shop` draws the first; `restock` makes of it the second: titles edited, items gone and new, a
new column, pictures redrawn under their old names, one mended, the log replaced. Both have rows that are set aside.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

from tests.ingest.tiny_models import picture

COLOURS = ("#c03030", "#3030c0", "#30a030", "#b09020", "#702090")
THINGS = ("shoe", "mug", "lamp", "chair", "scarf", "kettle")
PICTURES = 24
SHAPES = ("ellipse", "rectangle")


def open_shop(folder: Path) -> Path:
    """items.csv, events.csv and pictures/ as on the first day."""
    (folder / "pictures").mkdir(parents=True)
    for number in range(PICTURES):
        _draw(folder, number, number)
    (folder / "pictures" / "broken.png").write_bytes(b"no picture")
    rows = [_item(number) for number in range(30)]
    rows[7]["image"] = "pictures/broken.png"
    rows[8]["image"] = ""
    rows[9] |= {"title": "", "brand": "", "image": ""}
    _write(folder / "items.csv", [*rows, _item(30) | {"item_id": ""}])
    _write(folder / "events.csv", [*_events(30, seed=1), _event("u1", "unknown", 5)])
    return folder


def restock(folder: Path) -> Path:
    """The same files on the second day."""
    for number in (0, 1):
        _draw(folder, number, number + 25)
    _draw(folder, 27, 27)
    picture("#102030").save(folder / "pictures" / "broken.png")
    rows = [_item(number) for number in range(34) if number not in (3, 4, 5)]
    for row in rows[10:15]:
        row["title"] += " new"
    for place, row in enumerate(rows):
        row["season"] = ("summer", "winter")[place % 2]
    rows[-1]["image"] = "pictures/27.png"
    _write(folder / "items.csv", rows)
    _write(folder / "events.csv", _events(34, seed=2))
    return folder


def _draw(folder: Path, name: int, design: int) -> None:
    shape = SHAPES[design % 2]
    made = picture(COLOURS[design % 5], shape, stripes=design % 3 == 0)
    made.save(folder / "pictures" / f"{name}.png")


def _item(number: int) -> dict[str, Any]:
    return {
        "item_id": f"i{number:02d}",
        "title": f"{THINGS[number % 6]} number {number // 2}",
        "brand": ("Runwell", "Cuppa", "Lumen")[number % 3],
        "price": 5 + number,
        "image": f"pictures/{number % PICTURES}.png",
    }


def _events(items: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [_event(f"u{n % 25}", f"i{draw.randrange(6, items):02d}", 1000 + n) for n in range(200)]


def _event(user: str, item: str, time: int) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "timestamp": time, "value": time % 5}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
