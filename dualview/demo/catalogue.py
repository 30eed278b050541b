"""The catalogue: which products there are, what is said about them, and their pictures.

Every product has hidden attributes, drawn independently of one another and each told in its own way:

    palette x pattern = style   40 styles    only in the picture; never named
    theme                       40 themes    only in title and description; never drawn
    category                    10 kinds     in both: outline and words (and a column)
    factory                     12           in neither: the control
    appeal                      a number     in neither: how well a product sells by itself
    launch_day                  a number     in neither: the day of the log on which it is first for sale

Picture and words are made by two functions that are not given the other's attributes (`drawing.render`,
`describe`) and by two streams of random numbers, so a leak would need more than an oversight."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dualview.demo import words
from dualview.demo.drawing import PALETTES, PATTERNS, render

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Progress = Callable[[int, int | None, str], None]

PALETTE_NAMES = tuple(PALETTES)
CATEGORIES = tuple(words.KINDS)
THEME_NAMES = tuple(theme.name for theme in words.THEMES)
STYLES = len(PALETTE_NAMES) * len(PATTERNS)
FACTORIES = 12

_LATENTS, _WORDS, _PICTURES = 1, 2, 3  # streams of random numbers under one seed


@dataclass(frozen=True)
class CatalogueSettings:
    items: int = 2000
    seed: int = 0
    px: int = 144  # side of a picture
    no_picture: float = 0.03  # share of items without a picture
    no_description: float = 0.03  # share of items with a title only
    sequel: float = 0.9  # share of descriptions with a second sentence about the theme
    remark: float = 0.35  # share of descriptions with a sentence that has nothing to do with it
    appeal_spread: float = 0.8  # standard deviation of log appeal: the long tail
    days: int = 180  # length of the log
    late: float = 0.04  # share of items launched in the last `late_days`
    late_days: int = 10
    never_sold: float = 0.005  # share of items launched after the log ends


@dataclass(frozen=True)
class Latents:
    """What is true of each item and told, if at all, in one way only. Arrays of (n_items,)."""

    item_ids: tuple[str, ...]
    palette: Ints
    pattern: Ints
    theme: Ints
    category: Ints
    factory: Ints
    appeal: Floats
    launch_day: Floats

    @property
    def style(self) -> Ints:
        """Palette and pattern as one number, 0 to 39."""
        return self.palette * len(PATTERNS) + self.pattern


@dataclass(frozen=True)
class Catalogue:
    settings: CatalogueSettings
    latents: Latents
    rows: tuple[dict[str, str], ...]  # of items.csv


def draw_latents(settings: CatalogueSettings) -> Latents:
    """Each attribute in equal shares, shuffled on its own."""
    rng = np.random.default_rng([settings.seed, _LATENTS])
    n = settings.items

    def shuffled(kinds: int) -> Ints:
        return rng.permutation(np.arange(n, dtype=np.int64) % kinds)

    style = shuffled(STYLES)
    launch = np.zeros(n)
    late = rng.permutation(n)[: round(n * (settings.late + settings.never_sold))]
    launch[late] = rng.uniform(settings.days - settings.late_days, settings.days - 1, len(late))
    launch[late[: round(n * settings.never_sold)]] = settings.days + 1
    width = len(str(n - 1))
    return Latents(
        item_ids=tuple(f"P{k:0{width}d}" for k in range(n)),
        palette=style // len(PATTERNS),
        pattern=style % len(PATTERNS),
        theme=shuffled(len(THEME_NAMES)),
        category=shuffled(len(CATEGORIES)),
        factory=shuffled(FACTORIES),
        appeal=np.exp(rng.normal(0, settings.appeal_spread, n)),
        launch_day=launch,
    )


def describe(
    category: str,
    theme: words.Theme,
    settings: CatalogueSettings,
    rng: np.random.Generator,
    *,
    title_only: bool,
) -> dict[str, str]:
    """Title, description, brand and price of one item. Knows nothing of its picture."""

    def one(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    kind = words.KINDS[category]
    brand, name = one(words.BRANDS), one(kind.names)
    title = one(words.TITLES).format(title=one(theme.titles), kind=name, brand=brand, d=one(theme.doings))

    a, b, c, e = (theme.things[k] for k in rng.permutation(len(theme.things))[:4])
    d, d2 = (theme.doings[k] for k in rng.permutation(len(theme.doings))[:2])
    told = {
        "a": a,
        "b": b,
        "c": c,
        "d": d,
        "d2": d2,
        "e": e,
        "title": one(theme.titles),
        "kind": one(kind.names),
    }
    sentences = [_capital(one(words.OPENINGS).format(**told))]
    if rng.random() < settings.sequel:
        sentences.append(_capital(one(words.SEQUELS).format(**told)))
    if rng.random() < settings.remark:
        sentences.append(one(kind.facts + words.FILLERS))
    price = kind.price * float(np.exp(rng.normal(0, 0.28)))
    return {
        "title": _capital(title),
        "description": "" if title_only else " ".join(sentences),
        "brand": brand,
        "category": category,
        "price": f"{max(round(price), 4) - 0.05:.2f}",
    }


def draw_catalogue(settings: CatalogueSettings | None = None) -> Catalogue:
    """All rows of items.csv, without painting the pictures."""
    settings = settings or CatalogueSettings()
    latents = draw_latents(settings)
    rng = np.random.default_rng([settings.seed, _WORDS])
    title_only = rng.random(settings.items) < settings.no_description
    pictured = rng.random(settings.items) >= settings.no_picture
    rows = []
    for k, item_id in enumerate(latents.item_ids):
        said = describe(
            CATEGORIES[latents.category[k]],
            words.THEMES[latents.theme[k]],
            settings,
            rng,
            title_only=bool(title_only[k]),
        )
        image = f"images/{item_id}.jpg" if pictured[k] else ""
        rows.append({"item_id": item_id, **said, "image": image})
    return Catalogue(settings, latents, tuple(rows))


def write_catalogue(catalogue: Catalogue, folder: str | Path, progress: Progress | None = None) -> None:
    """items.csv and images/ under `folder`, as a shop would hand them over."""
    settings, latents = catalogue.settings, catalogue.latents
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for k, row in enumerate(catalogue.rows):
        if row["image"]:
            rng = np.random.default_rng([settings.seed, _PICTURES, k])
            style = PALETTE_NAMES[latents.palette[k]], PATTERNS[latents.pattern[k]]
            picture = render(CATEGORIES[latents.category[k]], *style, rng, settings.px)
            picture.save(folder / row["image"], quality=90)
        if progress and (k % 50 == 49 or k == len(catalogue.rows) - 1):
            progress(k + 1, len(catalogue.rows), "drawing products")
    with (folder / "items.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(catalogue.rows[0]))
        writer.writeheader()
        writer.writerows(catalogue.rows)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
