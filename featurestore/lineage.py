"""Where a value comes from and what was made of it: from an item's source through recipes to releases.

Everything here is read from what is kept anyway (tables, features.lock.json, manifests, the journal); nothing is kept
for the sake of being traced. A trace is a tree of `Node`s; what upper floors know (runs) they add to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore import features as cells
from featurestore import files, identity, images, schema, spelling
from featurestore.errors import NotFound
from featurestore.recipe import FEATURE, SHORT, Recipe
from featurestore.release import Cell, Release
from featurestore.schema import ValueKind

if TYPE_CHECKING:
    from featurestore.store import Store

FORMAT = 1  # of a provenance
_FIT = ("at", "items", "texts", "learnt", "held_out", "same_fit", "events")  # what a trace says of a fit


def provenance(release: Release) -> dict[str, Any]:
    """What a file exported from a release says of where its values come from; JSON, the same for the same release.

    `features` has each feature's whole recipe (kind, inputs, encoder, model and revision or folder hash, options,
    artifacts, code_version), the version of its table, and how many items have a value; `recipe` is None for one that
    had not been computed. `store` is None in a copy of a release without its store.
    """
    manifest = release.manifest
    store = None
    with suppress(OSError, ValueError, KeyError):
        about = files.read_json(release.root / "store.json")
        store = {"id": about["id"], "created": about["created"]}
    return {
        "format": FORMAT,
        "written_by": f"dualview {identity.version()}",
        "store": store,
        "release": {name: manifest[name] for name in ("name", "tag", "created", "items", "events", "inputs")},
        "tables": manifest["tables"],
        "features": {name: _described(manifest, name) for name in manifest["order"]},
    }


def _described(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    facts = manifest["features"][name]
    kept = {key: facts[key] for key in ("recipe_id", "recipe", "kind", "dim", "table", "coverage")}
    return kept | {"version": manifest["tables"].get(facts["table"])}


# ---- traces


@dataclass(frozen=True)
class Node:
    """One thing in a trace. kind: item, source, picture, feature, recipe, release, run and so on; facts: JSON."""

    kind: str
    name: str
    facts: dict[str, Any]
    below: list[Node] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        own = {"kind": self.kind, "name": self.name} | self.facts
        return own | ({"below": [node.to_dict() for node in self.below]} if self.below else {})

    def walk(self) -> Iterable[Node]:
        """This node and all below it."""
        yield self
        for node in self.below:
            yield from node.walk()


def item(store: Store, item_id: str) -> Node:
    """An item: the ingests that wrote it, its picture, each feature down to what it was computed from, its releases.

    Raises NotFound, with an id that is near.
    """
    row = _item_row(store, item_id)
    facts = {
        "title": row[schema.TITLE],
        "in the catalogue": not row[schema.DELETED],
        "content hash": row[schema.CONTENT_HASH],
        "added": _time(row[schema.ADDED_AT]),
        "last changed": _time(row[schema.UPDATED_AT]),
    }
    below = _sources(store, row)
    if row[schema.IMAGE_SHA256]:
        below.append(_picture(store, row))
    definitions = store.definitions
    read = {above for name in definitions.features for above in definitions.upstream(name)}
    below += [_cell(store, name, row) for name in definitions.features if name not in read]
    below += [node for made in store.releases() if (node := _in_release(made, item_id)) is not None]
    return Node("item", item_id, facts, below)


def feature(store: Store, name: str) -> Node:
    """A feature: its definition, recipe and what that reads, what reads it, its tables, and the releases that hold it.

    Raises NotFound, with the nearest name.
    """
    definitions = store.definitions
    definition = definitions.get(name)
    state = next(f for f in store.status().features if f.name == name)
    counts = {k: getattr(state, k) for k in ("current", "no_input", "missing", "stale", "failed", "blocked")}
    facts: dict[str, Any] = definition.model_dump(mode="json", exclude={"name"})
    below = [_recipe(store, name)]
    below += [
        Node("read by", other, {"recipe": _short(store.recipe(other))})
        for other in definitions.features
        if name in definitions.upstream(other)
    ]
    active = store.recipe(name)
    used = active.table(name) if active else None
    tables = [table for table in store.tables.names() if table.startswith(f"{name}__")]
    below += [_table(store, table, active=table == used) for table in tables]
    below += [
        Node("release", made.name, _used(made, name))
        for made in store.releases()
        if name in made.manifest["features"]
    ]
    return Node("feature", name, facts | {"cells": counts}, below)


def release(store: Store, name: str) -> Node:
    """A release: what it pins, and the recipe, coverage and index of each feature. Raises NotFound."""
    made = store.release(name)
    manifest = made.manifest
    facts = {key: manifest[key] for key in ("tag", "created", "items", "events", "tables")}
    return Node(
        "release", made.name, facts, [Node("feature", each, _used(made, each)) for each in manifest["order"]]
    )


def _table(store: Store, table: str, *, active: bool) -> Node:
    facts = {
        "active": active,
        "cells": store.tables.count(table),
        "version": store.tables.version(table),
        "bytes": store.tables.disk(table),
    }
    return Node("table", table, facts)


def _used(made: Release, name: str) -> dict[str, Any]:
    """What a release holds of a feature. The index's facts have its measured recall where it is not exact."""
    facts = _described(made.manifest, name)
    kept = {key: facts[key] for key in ("kind", "dim", "table", "version", "coverage")}
    index = made.manifest["features"][name].get("index")
    recipe = facts["recipe_id"]
    return {"recipe": recipe[:SHORT] if recipe else None} | kept | ({"index": index} if index else {})


def _item_row(store: Store, item_id: str) -> dict[str, Any]:
    if store.tables.exists(schema.ITEMS):
        quoted = item_id.replace("'", "''")
        found = store.tables.read(schema.ITEMS, filter=f"{schema.ITEM_ID} = '{quoted}'").to_pylist()
        if found:
            row: dict[str, Any] = found[0]
            return row
    raise NotFound(f"the store has no item '{item_id}'", remedy=_near(store, item_id))


def _near(store: Store, item_id: str) -> str:
    if not store.tables.exists(schema.ITEMS):
        return f"dualview ingest {store.root} ITEMS"
    ids = store.tables.read(schema.ITEMS, columns=[schema.ITEM_ID])[schema.ITEM_ID]
    return spelling.hint(np.sort(np.asarray(ids.to_pylist(), dtype=np.str_)), item_id)


def _sources(store: Store, row: dict[str, Any]) -> list[Node]:
    """The ingests that added the item and changed it last, found in the journal by their time."""
    ingests = [entry for entry in store.history() if entry["verb"] == "ingest"]
    found: dict[str, list[str]] = {}
    by_time = {entry["at"]: entry for entry in ingests}
    for what, when in (("added it", row[schema.ADDED_AT]), ("changed it last", row[schema.UPDATED_AT])):
        if when is None or (what == "changed it last" and when == row[schema.ADDED_AT]):
            continue
        second = when.replace(microsecond=0)
        after = [entry["at"] for entry in ingests if datetime.fromisoformat(entry["at"]) >= second]
        if after:
            found.setdefault(after[0], []).append(what)
    return [
        Node(
            "ingest",
            at,
            {"what": " and ".join(what), "from": by_time[at].get("sources"), "by": by_time[at].get("by")},
        )
        for at, what in found.items()
    ]


def _picture(store: Store, row: dict[str, Any]) -> Node:
    sha256 = row[schema.IMAGE_SHA256]
    at = images.by_sha256(store.tables).get(sha256)
    facts: dict[str, Any] = {"sha256": sha256}
    if at is not None:
        facts |= {
            "file": str(at.file),
            "bytes": at.bytes,
            "now": _file_now(at),
            "kept in the store": sha256 in images.kept(store.tables),
        }
    return Node("picture", str(row[schema.IMAGE]), facts)


def _file_now(at: images.Located) -> str:
    try:
        seen = at.file.stat()
        if (seen.st_size, seen.st_mtime_ns) == (at.bytes, at.mtime_ns):
            return "as it was ingested"
        return "as it was ingested" if files.sha256_file(at.file) == at.sha256 else "another picture"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _cell(store: Store, name: str, row: dict[str, Any]) -> Node:
    """One item's cell of a feature, over the recipe it was made by and what that reads."""
    recipes, locked = store.recipes(), store.locked().get(name)
    reason = store.outdated(name)
    if locked is None or reason is not None:
        return Node("feature", name, {"state": "missing", "because": reason})
    recipe = locked.recipe
    facts: dict[str, Any] = {"state": "left the catalogue"}
    if not row[schema.DELETED]:
        facts = {"state": cells.plan(store.tables, recipes, name, row[schema.ITEM_ID])["state"][0].as_py()}
    table = recipe.table(name)
    if store.tables.exists(table):
        facts |= _stored_cell(store, table, recipe, row[schema.ITEM_ID])
    upstream = [_cell(store, above, row) for above, _ in recipe.upstream]
    return Node("feature", name, facts, [_made_by(recipe, locked.fitted, locked.files), *upstream])


def _stored_cell(store: Store, table: str, recipe: Recipe, item_id: str) -> dict[str, Any]:
    quoted = item_id.replace("'", "''")
    text = [schema.VALUE] if recipe.value is ValueKind.TEXT else []
    answer = [field.name for field in schema.ANSWER_FIELDS] if recipe.kind == schema.DESCRIBE else []
    columns = [
        schema.STATUS,
        *text,
        schema.INPUT_HASH,
        schema.VALUE_HASH,
        schema.ERROR_CODE,
        schema.ERROR_MESSAGE,
        schema.ATTEMPTS,
        schema.UPDATED_AT,
        *answer,
    ]
    found = store.tables.read(table, columns=columns, filter=f"{schema.ITEM_ID} = '{quoted}'").to_pylist()
    if not found:
        return {}
    cell = found[0] | {schema.UPDATED_AT: _time(found[0][schema.UPDATED_AT])}
    return {key.strip("_").replace("_", " "): value for key, value in cell.items() if value is not None}


def _recipe(store: Store, name: str) -> Node:
    """The active recipe of a feature, over those of what it reads."""
    locked = store.locked().get(name)
    if locked is None:
        return Node("recipe", "none", {"because": "never resolved"})
    node = _made_by(locked.recipe, locked.fitted, locked.files)
    reason = store.outdated(name)
    above = [Node("reads", each, {}, [_recipe(store, each)]) for each, _ in locked.recipe.upstream]
    return Node("recipe", node.name, node.facts | ({"outdated": reason} if reason else {}), above)


def _made_by(recipe: Recipe, fitted: dict[str, Any] | None, beside: dict[str, str]) -> Node:
    facts: dict[str, Any] = {
        "made by": f"{recipe.kind} · {recipe.encoder}",
        "from": [_input(name) for name in recipe.inputs],
        "code version": recipe.code_version,
    }
    if recipe.model is not None:
        facts["model"] = recipe.model.model_dump(mode="json", exclude_none=True)
    if recipe.dim is not None:
        facts["dim"] = recipe.dim
    if recipe.options:
        facts["options"] = recipe.options
    if recipe.artifacts:
        facts["artifacts"] = recipe.artifacts
    if beside:
        facts["files"] = beside
    if fitted:
        facts["fitted"] = {key: fitted[key] for key in _FIT if key in fitted}
    return Node("recipe", recipe.short, facts)


def _input(name: str) -> str:
    """An input as a recipe names it, with short recipes."""
    feature, at, recipe = name.partition("@")
    return f"{feature}@{recipe[:SHORT]}" if at and name.startswith(FEATURE) else name


def _in_release(made: Release, item_id: str) -> Node | None:
    """What a release holds of an item, None where it does not have it."""
    row = spelling.place(made.ids, item_id)
    if row < 0:
        return None
    held = {}
    for name in made.features:
        recipe = made.facts(name)["recipe_id"][:SHORT]
        held[name] = f"{recipe} {Cell(made.cell(name, row)).name.lower()}"
    return Node(
        "release", made.name, {"tag": made.tag, "created": made.created, "row": row, "features": held}
    )


def _short(recipe: Recipe | None) -> str | None:
    return recipe.short if recipe else None


def _time(when: datetime | None) -> str | None:
    return when.isoformat(timespec="seconds") if when else None
