"""Where a value comes from and what was made of it: from an item's source through recipes to releases.

Everything here is read from what is kept anyway (tables, features.lock.json, manifests, the journal); nothing is kept
for the sake of being traced. What upper floors add (runs, prompts) comes from them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from featurestore import files, identity
from featurestore.release import Release

FORMAT = 1  # of a provenance


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
        "features": {name: _feature(manifest, name) for name in manifest["order"]},
    }


def _feature(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    facts = manifest["features"][name]
    kept = {key: facts[key] for key in ("recipe_id", "recipe", "kind", "dim", "table", "coverage")}
    return kept | {"version": manifest["tables"].get(facts["table"])}
