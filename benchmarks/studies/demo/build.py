"""Draws the shop of this study, fills a store from it, and writes what the truth says is attainable.

python -m benchmarks.studies.demo.build benchmarks/out/study-demo

The shop is drawn as that of `make demo`, with half its products and more customers, so that tastes can be learnt from
the log. Beside words and pictures the store holds the true labels of style, theme and category, as imported vectors:
what a model makes of those is what it could make of words and pictures that it reads perfectly.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualview.demo.catalogue import Catalogue, CatalogueSettings, draw_catalogue
from dualview.demo.taste import STYLE, THEME, Log, TasteSettings, draw_log
from dualview.demo.truth import attained, drawn_with, make_shop, target_ranks
from dualview.store import Store
from featurestore import files
from featurestore.errors import Conflict
from recommender.cold import users_of
from recommender.data import split_of
from recommender.study import Study

HERE = Path(__file__).parent
CATALOGUE = CatalogueSettings(items=1000, late=0.15, late_days=20, seed=3)
TASTE = TasteSettings(users=8000)
KNOWING = {"style and theme": (STYLE, THEME), "theme": (THEME,), "style": (STYLE,), "neither": ()}


Bool = NDArray[np.bool_]


def attainable(
    catalogue: Catalogue, log: Log, customers: Bool | None = None, among: Bool | None = None
) -> dict[str, Any]:
    """NDCG@10 and HR@10 on each customer's last event, of rankings by the generator's own probabilities that know style
    and theme of the items, or one of the two, or neither; and the share that is lost against knowing both. customers:
    (n_users,) of whom; None for all. among: (n_items,) which products are ranked; None for all."""
    asked = slice(None) if customers is None else customers
    found = {
        name: attained(target_ranks(catalogue, log, known, among)[asked]) for name, known in KNOWING.items()
    }
    whole = found["style and theme"]["NDCG"]
    return {
        name: {key: round(value, 4) for key, value in figures.items()}
        | {"NDCG lost": round(1 - figures["NDCG"] / whole, 3)}
        for name, figures in found.items()
    }


def build(folder: Path) -> Store:
    """The shop in FOLDER/shop and a published store in FOLDER/store, made where they are not there yet."""
    shop, root = folder / "shop", folder / "store"
    if not (shop / "truth.json").exists():
        make_shop(shop, CATALOGUE, TASTE)
    elif not drawn_with(shop, CATALOGUE, TASTE):
        raise Conflict(f"{shop} holds another shop", remedy="give another folder, or delete this one")
    filled = (root / "store.json").exists()
    store = Store.open(root) if filled else Store.create(root, (HERE / "features.toml").read_text("utf-8"))
    store.ingest(shop / "items.csv", shop / "events.csv")
    made = store.materialize()
    if import_labels(store, shop) or made.computed or store.status().release is None:
        store.publish()
    return store


def import_labels(store: Store, shop: Path) -> int:
    """The true labels of each item as one-hot vectors: true_style, true_theme, true_category. How many were new."""
    items = json.loads((shop / "truth.json").read_text("utf-8"))["items"]
    kinds = {
        "true_style": [f"{item['palette']} {item['pattern']}" for item in items],
        "true_theme": [item["theme"] for item in items],
        "true_category": [item["category"] for item in items],
    }
    written = 0
    for name, labels in kinds.items():
        _, which = np.unique(labels, return_inverse=True)
        file = shop / f"{name}.npy"
        np.save(file, np.eye(which.max() + 1, dtype=np.float32)[which])
        file.with_suffix(".ids.txt").write_text("\n".join(item["item_id"] for item in items) + "\n")
        written += store.import_vectors(name, file, model="the truth").written
    return written


def of_hidden(store: Store, catalogue: Catalogue, log: Log) -> tuple[Bool, Bool]:
    """Which customers' last event (n_users,) is of a product that the study hides, and which (n_items,) those are."""
    split = split_of(
        store.release("latest"), Study.read(HERE / "study.toml").select(data=["hidden"])[0].config
    )
    customers = np.isin(np.array(log.user_ids), split.log.user_ids[users_of(split)])
    return customers, np.isin(np.array(catalogue.latents.item_ids), split.log.item_ids[split.is_hidden])


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the shop of the study and fill its store.")
    parser.add_argument("folder", type=Path, help="where shop and store go")
    folder = parser.parse_args().folder
    catalogue = draw_catalogue(CATALOGUE)
    log = draw_log(catalogue, TASTE)
    customers, hidden = of_hidden(build(folder), catalogue, log)
    told = {
        "catalogue": asdict(CATALOGUE),
        "taste": asdict(TASTE),
        "events": len(log.items),
        "attainable": attainable(catalogue, log),
        "attainable among hidden": attainable(catalogue, log, customers, hidden),
        "customers of hidden": int(customers.sum()),
    }
    files.write_json(HERE / "truth.json", told)
    print(folder / "store", told)


if __name__ == "__main__":
    main()
