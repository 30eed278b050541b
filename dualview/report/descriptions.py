"""A page that shows items side by side: the picture, the item's own text, and what each described feature says.

One file with everything in it, escaped, without scripts; it reads in light and in dark.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from featurestore import files, images, schema
from featurestore.errors import BadInput, NotFound
from ingest.document import documents

if TYPE_CHECKING:
    from featurestore.definitions import FeatureDef
    from featurestore.store import Store

TEMPLATE = "descriptions.html"


def write(
    store: Store, out: Path, *, items: int = 30, seed: int = 0, features: Sequence[str] | None = None
) -> dict[str, Any]:
    """Write the page; returns what it shows. items: how many, drawn by `seed` among those that any feature told of.

    Raises NotFound for an unknown feature, BadInput for one that is not described, or where nothing was described yet.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    chosen = _chosen(store, features)
    cells = {feature.name: _cells(store, feature) for feature in chosen}
    told = sorted(
        {item for rows in cells.values() for item, row in rows.items() if row["status"] != "no_input"}
    )
    if not told:
        raise BadInput("nothing was described yet", remedy=f"dualview materialize {store.root}")
    live = store.tables.read(schema.ITEMS, filter=f"{schema.DELETED} IS NOT TRUE")
    known = set(live[schema.ITEM_ID].to_pylist())
    told = [item for item in told if item in known]
    drawn = sorted(random.Random(seed).sample(told, min(items, len(told))))
    environment = Environment(
        loader=PackageLoader("dualview"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(
        title=f"{store.root.name}: {len(drawn)} items described",
        features=[_facts(store, feature, cells[feature.name]) for feature in chosen],
        items=_shown(store, live, drawn, cells),
        total=len(known),
        seed=seed,
    )
    files.write_text(out, page)
    return {
        "file": str(out),
        "items": len(drawn),
        "features": [f.name for f in chosen],
        "bytes": len(page.encode()),
    }


def _chosen(store: Store, features: Sequence[str] | None) -> list[FeatureDef]:
    described = [f for f in store.definitions if f.kind == schema.DESCRIBE]
    if features is None:
        chosen = [
            f for f in described if (r := store.recipe(f.name)) and store.tables.exists(r.table(f.name))
        ]
    else:
        chosen = [store.definitions.get(name) for name in features]
    for feature in chosen:
        if feature.kind != schema.DESCRIBE:
            raise BadInput(
                f"feature '{feature.name}' is of kind {feature.kind}, and has no text to show",
                remedy=f"one of: {', '.join(f.name for f in described) or 'none is described yet'}",
            )
    return chosen


def _cells(store: Store, feature: FeatureDef) -> dict[str, dict[str, Any]]:
    table = store.feature_table(feature.name)
    if not store.tables.exists(table):
        raise NotFound(
            f"feature '{feature.name}' was never computed", remedy=f"dualview materialize {store.root}"
        )
    rows = store.tables.read(table).to_pylist()
    return {row[schema.ITEM_ID]: row for row in rows}


def _facts(store: Store, feature: FeatureDef, cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    recipe = store.recipe(feature.name)
    states = [row["status"] for row in cells.values()]
    words = [len(row["value"].split()) for row in cells.values() if row["value"]]
    return {
        "name": feature.name,
        "made_by": " · ".join(
            filter(None, [feature.encoder, feature.model, str(feature.options.get("prompt", ""))])
        ),
        "recipe": recipe.short if recipe else "",
        "ok": states.count("ok"),
        "no_input": states.count("no_input"),
        "error": states.count("error"),
        "words": round(sum(words) / len(words)) if words else 0,
    }


def _shown(
    store: Store, live: pa.Table, drawn: list[str], cells: dict[str, dict[str, dict[str, Any]]]
) -> list[dict[str, Any]]:
    place = {item: at for at, item in enumerate(live[schema.ITEM_ID].to_pylist())}
    rows = live.take(pa.array([place[item] for item in drawn]))
    columns = [name for name in schema.text_columns(rows.schema) if name != schema.TITLE]
    texts = documents(rows, columns, labels=True) if columns else [""] * len(rows)
    shas = [sha or "" for sha in rows[schema.IMAGE_SHA256].to_pylist()]
    pictures = images.thumbnails(store.tables, shas)
    titles = rows[schema.TITLE].to_pylist()
    return [
        {
            "id": item,
            "title": title or item,
            "text": text,
            "picture": _data(pictures[sha]) if sha in pictures else None,
            "says": [_said(cells[name].get(item), name) for name in cells],
        }
        for item, title, text, sha in zip(drawn, titles, texts, shas, strict=True)
    ]


def _said(row: dict[str, Any] | None, name: str) -> dict[str, Any]:
    if row is None:
        return {"name": name, "status": "none", "text": "", "error": "", "raw": "", "counts": ""}
    counts = [f"{row[schema.SECONDS]:.2f} s"] if (row[schema.SECONDS] or 0) >= 0.005 else []
    if row[schema.COMPLETION_TOKENS] is not None:
        counts.append(f"{row[schema.COMPLETION_TOKENS]} tokens")
    if row[schema.FINISH_REASON] not in (None, "stop"):
        counts.append(f"finish {row[schema.FINISH_REASON]}")
    code = row["error_code"] if row["status"] == "error" else None
    error = ": ".join(filter(None, [code, row["error_message"]]))
    return {
        "name": name,
        "status": row["status"],
        "text": row["value"] or "",
        "error": error,
        "raw": row[schema.RAW] if row["status"] == "error" and row[schema.RAW] else "",
        "counts": ", ".join(counts),
    }


def _data(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
