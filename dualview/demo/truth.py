"""What is true of the drawn shop: twins, chance levels, leakage between modalities, and the best ranking
there is.

Two items are *visual twins* if they share the style (palette and pattern), *textual twins* if they share the
theme. An encoder that reads the right modality finds them; one that reads the other modality finds them as
often as chance does."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dualview.demo.catalogue import (
    CATEGORIES,
    PALETTE_NAMES,
    THEME_NAMES,
    Catalogue,
    CatalogueSettings,
    Ints,
    Progress,
    draw_catalogue,
    write_catalogue,
)
from dualview.demo.drawing import PATTERNS
from dualview.demo.taste import DAY, EPOCH, STYLE, THEME, Log, Shop, TasteSettings, draw_log, write_events


@dataclass(frozen=True)
class Truth:
    """The latent attributes of every item as read from truth.json; never ingested."""

    style: dict[str, str]  # item_id -> "marine stripes"
    theme: dict[str, str]
    category: dict[str, str]
    factory: dict[str, str]
    oracle: dict[str, float]  # see `oracle`

    def visual_twins(self, item: str) -> list[str]:
        """Items in the same palette and pattern, itself left out."""
        return _twins(self.style, item)

    def textual_twins(self, item: str) -> list[str]:
        """Items told about with the same theme, itself left out."""
        return _twins(self.theme, item)


def _twins(labels: Mapping[str, str], item: str) -> list[str]:
    return [other for other, label in labels.items() if label == labels[item] and other != item]


def precision_at_5(neighbours: Mapping[str, Sequence[str]], labels: Mapping[str, str]) -> float:
    """Mean share of an item's first five neighbours that have its label.

    neighbours: item -> its nearest items, best first, itself left out. An item with fewer than five counts
    the missing ones as wrong. Raises ValueError where there is no item to measure."""
    if not neighbours:
        raise ValueError("precision_at_5 of no item at all")
    shares = [sum(labels[n] == labels[item] for n in near[:5]) / 5 for item, near in neighbours.items()]
    return float(np.mean(shares))


def chance(labels: Mapping[str, str], items: Sequence[str] | None = None) -> float:
    """Precision of a random order: an item's (class size - 1) / (n - 1), averaged over `items` (all, if
    None)."""
    among = list(labels) if items is None else list(items)
    counts: dict[str, int] = {}
    for item in among:
        counts[labels[item]] = counts.get(labels[item], 0) + 1
    return float(np.mean([(counts[labels[item]] - 1) / (len(among) - 1) for item in among]))


def nearest(ids: Sequence[str], vectors: NDArray[np.float32], k: int = 5) -> dict[str, list[str]]:
    """The k nearest items of every item by cosine, itself left out; ties to the lower row."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found: dict[str, list[str]] = {}
    for start in range(0, len(unit), 512):
        scores = unit[start : start + 512] @ unit.T
        scores[np.arange(len(scores)), start + np.arange(len(scores))] = -np.inf
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found |= {ids[start + i]: [ids[j] for j in row] for i, row in enumerate(rows.tolist())}
    return found


def dependence(a: Ints, b: Ints, shuffles: int = 200, seed: int = 0) -> float:
    """How far two attributes are from independent: mutual information in standard deviations above that of
    shuffles.

    Around 0 for independent attributes (beyond 4 in less than one case of ten thousand), hundreds for equal
    ones."""
    rng = np.random.default_rng(seed)
    shuffled = np.array([_information(a, rng.permutation(b)) for _ in range(shuffles)])
    return float((_information(a, b) - shuffled.mean()) / max(float(shuffled.std()), 1e-12))


def _information(a: Ints, b: Ints) -> float:
    """Mutual information of two columns of labels, in nats."""
    wide = int(b.max()) + 1
    joint = np.bincount(a * wide + b, minlength=(int(a.max()) + 1) * wide).reshape(-1, wide) / len(a)
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / expected[some])).sum())


def target_ranks(
    catalogue: Catalogue,
    log: Log,
    known: Collection[str] = (STYLE, THEME),
    among: NDArray[np.bool_] | None = None,
) -> Ints:
    """(n_users,) 1-based ranks of each user's last event by the generator's own probabilities (full catalogue, no item
    twice; of equal probabilities the lower row is first).

    known: of "style" and "theme", those that the ranking can tell. A recommender whose pictures say nothing knows the
    theme alone, and one whose texts say nothing the style alone; category, appeal and tastes are known to all.

    among: (n_items,) rank among these only; the rank of a user whose last event is of another item means nothing."""
    shop, offsets = Shop(catalogue.latents, known), log.offsets
    ranks = np.zeros(len(offsets) - 1, dtype=np.int64)
    for user, at in enumerate((offsets[1:] - 1).tolist()):
        history, target = log.items[offsets[user] : at], int(log.items[at])
        day = (int(log.times[at]) - EPOCH) / DAY
        chances = shop.distribution(log.settings, log.tastes[user], history, day, 1 / log.settings.session)
        if among is not None:
            chances = np.where(among, chances, -1.0)
        ranks[user] = _rank(chances, target)
    return ranks


def _rank(scores: NDArray[np.float64], target: int) -> int:
    above = (scores > scores[target]).sum() + (scores[:target] == scores[target]).sum()
    return int(above) + 1


def oracle(catalogue: Catalogue, log: Log, k: int = 10) -> dict[str, float]:
    """What ranking by the generator's own probabilities attains on each user's last event (full catalogue, no
    item twice): HR@k and NDCG@k, and what popularity in all earlier events attains there.

    The oracle knows today's favourites of each user and how the next item is drawn from them and the last
    item; not whether a new session begins. A recommender has to infer the favourites from the log, so it
    stays below."""
    offsets = log.offsets
    last = offsets[1:] - 1
    earlier = np.ones(len(log.items), dtype=bool)
    earlier[last] = False
    sold = np.bincount(log.items[earlier], minlength=len(catalogue.latents.item_ids)).astype(np.float64)
    popularity = np.zeros(len(last), dtype=np.int64)
    for user, at in enumerate(last.tolist()):
        popular = sold.copy()
        popular[log.items[offsets[user] : at]] = -1
        popularity[user] = _rank(popular, int(log.items[at]))
    found = {"oracle": target_ranks(catalogue, log), "popularity": popularity}
    return {
        f"{name} {metric}@{k}": round(value, 4)
        for name, ranks in found.items()
        for metric, value in attained(ranks, k).items()
    }


def attained(ranks: Ints, k: int = 10) -> dict[str, float]:
    """Mean NDCG@k and HR@k of 1-based ranks of one target a user."""
    gains = np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)
    return {"NDCG": float(gains.mean()), "HR": float((ranks <= k).mean())}


def write_truth(catalogue: Catalogue, log: Log, folder: str | Path) -> None:
    latents = catalogue.latents
    items = [
        {
            "item_id": item_id,
            "palette": PALETTE_NAMES[latents.palette[k]],
            "pattern": PATTERNS[latents.pattern[k]],
            "theme": THEME_NAMES[latents.theme[k]],
            "category": CATEGORIES[latents.category[k]],
            "factory": f"factory {latents.factory[k] + 1}",
            "appeal": round(float(latents.appeal[k]), 4),
            "launch_day": round(float(latents.launch_day[k]), 2),
        }
        for k, item_id in enumerate(latents.item_ids)
    ]
    settings = {"catalogue": asdict(catalogue.settings), "taste": asdict(log.settings)}
    text = json.dumps({"settings": settings, "oracle": oracle(catalogue, log), "items": items}, indent=1)
    (Path(folder) / "truth.json").write_text(text, encoding="utf-8")


def read_truth(folder: str | Path) -> Truth:
    held = json.loads((Path(folder) / "truth.json").read_text(encoding="utf-8"))
    rows = {row["item_id"]: row for row in held["items"]}
    return Truth(
        style={k: f"{row['palette']} {row['pattern']}" for k, row in rows.items()},
        theme={k: row["theme"] for k, row in rows.items()},
        category={k: row["category"] for k, row in rows.items()},
        factory={k: row["factory"] for k, row in rows.items()},
        oracle=held["oracle"],
    )


def drawn_with(folder: str | Path, catalogue: CatalogueSettings, taste: TasteSettings) -> bool:
    """Whether the shop in `folder` was drawn with these settings."""
    held = json.loads((Path(folder) / "truth.json").read_text(encoding="utf-8"))
    return bool(held["settings"] == {"catalogue": asdict(catalogue), "taste": asdict(taste)})


def make_shop(
    folder: str | Path,
    catalogue: CatalogueSettings | None = None,
    taste: TasteSettings | None = None,
    progress: Progress | None = None,
) -> Truth:
    """Draw everything into `folder`: items.csv, images/, events.csv and, not for ingesting, truth.json."""
    drawn = draw_catalogue(catalogue)
    write_catalogue(drawn, folder, progress)
    log = draw_log(drawn, taste, progress)
    write_events(drawn, log, folder)
    write_truth(drawn, log, folder)
    return read_truth(folder)
