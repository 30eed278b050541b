"""Fused features for tests of what is made of them: weights that are drawn, not learned, and their fit in the lock."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from featurestore import files
from featurestore.store import Store
from ingest import resolve
from ingest.encode.dmesr import FuseOptions
from ingest.fuse import apply, recipes
from ingest.fuse.dual import DualView, Fusion
from ingest.fuse.reading import Reading
from ingest.fuse.stored import Stored, Tokens, Vectors

# the fused feature stands first: it is last for being read from, not for its place
TOML = """
[features.fused]
kind = "fuse"
encoder = "dmesr"
inputs = ["text", "image", "fine"]
width = 4

[features.text]
kind = "embed_text"
inputs = ["text"]
encoder = "tfidf_svd"
dim = 5

[features.image]
kind = "embed_image"
inputs = ["image"]
encoder = "color_texture"

[features.fine]
kind = "embed_tokens"
inputs = ["title", "brand", "tags"]
encoder = "tfidf_svd"
dim = 3
"""
ABOVE = ["text", "image", "fine"]


def declare(store: Store, text: str) -> None:
    files.write_text(store.root / "features.toml", text)


def some(n: int = 12, seed: int = 0) -> dict[str, Stored]:
    """Vectors of two coarse inputs, which some items lack, and one fine, of 0 to 3 vectors; item 0 has none at all."""
    draw = np.random.default_rng(seed)
    there = draw.random((2, n)) < 0.8
    counts = draw.integers(0, 4, n)
    there[:, 0], counts[0] = False, 0
    there[0, 1] = there[1, 1] = True
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    text, image = (
        Vectors((draw.normal(size=(n, width)) * mask[:, None]).astype(np.float32), mask)
        for width, mask in ((5, there[0]), (7, there[1]))
    )
    tokens = Tokens(draw.normal(size=(int(offsets[-1]), 3)).astype(np.float32), offsets)
    return {"text": text, "ocr_text": image, "fine": tokens}


def view_of(stored: dict[str, Stored], seed: int = 0, **given: Any) -> DualView:
    """A view with drawn weights, none of which is zero."""
    fine = [name for name, each in stored.items() if isinstance(each, Tokens)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        view = DualView(stored, [name for name in stored if name not in fine], fine, Fusion(**given))
        for weight in view.parameters():
            torch.nn.init.normal_(weight, std=0.5)
    return view.eval()


def fit(store: Store, feature: str = "fused", *, seed: int = 0, **facts: Any) -> None:
    """Lock a fit of drawn weights; what the feature reads is computed."""
    definition = store.definitions.get(feature)
    above = {name: store.recipes()[name] for name in store.definitions.upstream(feature)}
    ids = sorted(resolve.live_ids(store))
    reading = Reading(store.tables, [(name, each.id) for name, each in above.items()], ids)
    stored = reading.take(np.arange(len(ids)))
    options = FuseOptions.model_validate(
        {k: v for k, v in definition.options.items() if k not in ("output", "normalised")}
    )
    view = view_of(stored, seed, width=options.width, heads=options.heads)
    coarse = [source.name for source in view.coarse.sources]
    artifact = store.artifacts.put(
        apply.files_of(view, coarse, [source.name for source in view.fine.sources])
    )
    told = {
        "at": "2026-11-21T10:00:00+00:00",
        "items": len(ids),
        "asked": options.asked,
        "options": asdict(view.fusion),
        "width": options.width,
    }
    with store.lock("test"):
        recipe = recipes.with_fit(definition, recipes.pinned(definition, above), artifact, told)
        store.lock_recipe(feature, recipe, told | facts)
