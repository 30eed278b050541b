"""The customers of the shop: what they like, and what they take one after another.

The generative model, in full. A user u has

    eye       e_u ~ Beta(a, a): shops by look (1) or by theme (0)
    styles    `favourites` of the 40 styles, weights ~ Dirichlet(2)      seen only in pictures
    themes    `favourites` of the 40 themes, weights ~ Dirichlet(2)      told only in words
    kinds     a weight for each of the 10 categories: 1, .6, .35 for three of them, `other_kinds` for the rest
    sessions  at sorted uniform days between an own start and the end of the log

and takes one item after the other, never one twice and none before its launch. Each step draws a *drive*,
then an item i among the candidates of that drive with probability proportional to appeal_i x kind weight of
i:

    explore   with probability `explore`: any item, by its appeal alone go on     within a session, with
    probability `stay`: the style of the last item with probability e_u, else its theme like      otherwise,
    and always at a session's start: a favourite style with probability e_u, else a favourite theme, each
    favourite by its weight

A session ends after each event with probability 1 / `session`. At a session's start, with probability
`drift`, one favourite style and one favourite theme are replaced by new ones. So the next item depends on the
last one and on the user's favourites of today; `distribution` gives its probabilities exactly, and
`truth.oracle` ranks by them."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dualview.demo.catalogue import (
    CATEGORIES,
    STYLES,
    THEME_NAMES,
    Catalogue,
    Floats,
    Ints,
    Latents,
    Progress,
)

_EVENTS = 4  # stream of random numbers under the catalogue's seed
EPOCH = 1_735_689_600  # 2025-01-01 00:00 UTC, day 0 of the log
DAY = 86_400

STYLE, THEME, ANY = "style", "theme", "any"


@dataclass(frozen=True)
class TasteSettings:
    users: int = 3000
    shortest: int = 8  # events of a user
    longest: int = 40
    favourites: int = 3  # styles, and as many themes
    eye: float = 1.5  # a of Beta(a, a): below 1 people shop by look or by theme, above 1 by both
    other_kinds: float = 0.04
    explore: float = 0.08
    stay: float = 0.8
    session: float = 5.0  # mean events of a session
    drift: float = 0.25


@dataclass(frozen=True)
class Taste:
    """What one user likes at one moment."""

    eye: float
    styles: tuple[int, ...]
    style_weights: tuple[float, ...]
    themes: tuple[int, ...]
    theme_weights: tuple[float, ...]
    kinds: Floats  # (10,)


@dataclass(frozen=True)
class Log:
    """Everybody's events, ordered by user and time, and each user's taste when the last event happened."""

    settings: TasteSettings
    user_ids: tuple[str, ...]
    users: Ints  # (n_events,) row of user_ids
    items: Ints  # (n_events,) row of the catalogue
    times: Ints  # (n_events,) unix seconds, strictly increasing within a user
    tastes: tuple[Taste, ...]

    @property
    def offsets(self) -> Ints:
        """(n_users + 1,): events of user u are offsets[u]:offsets[u + 1]."""
        return np.concatenate([[0], np.cumsum(np.bincount(self.users, minlength=len(self.user_ids)))]).astype(
            np.int64
        )


class Shop:
    """The catalogue as customers meet it: who has which style, theme and kind, and how appealing it is.

    known: of style and theme, those that can be told. Where one cannot, a drive to one of its values has every item
    as a candidate, which is how it looks to whoever cannot tell which items have that value.
    """

    def __init__(self, latents: Latents, known: Collection[str] = (STYLE, THEME)) -> None:
        self.latents = latents
        everything = np.arange(len(latents.item_ids))
        self.members = {
            name: [np.flatnonzero(of == k) if name in known else everything for k in range(kinds)]
            for name, of, kinds in (
                (STYLE, latents.style, STYLES),
                (THEME, latents.theme, len(THEME_NAMES)),
            )
        } | {ANY: [everything]}

    def weights(
        self, drive: tuple[str, int], taste: Taste, taken: NDArray[np.bool_], day: float
    ) -> tuple[Ints, Floats]:
        """Candidates of a drive and their weights, those that cannot be taken left at 0."""
        among = self.members[drive[0]][drive[1]]
        weight = self.latents.appeal[among]
        if drive[0] != ANY:
            weight = weight * taste.kinds[self.latents.category[among]]
        return among, weight * (~taken[among] & (self.latents.launch_day[among] <= day))

    def drives(
        self, settings: TasteSettings, taste: Taste, last: int | None, new_session: float
    ) -> list[tuple[float, tuple[str, int]]]:
        """Every drive with its probability. `new_session`: the probability that the step opens one (1 or 0 if
        known)."""
        go_on = 0.0 if last is None else (1 - new_session) * settings.stay
        like = 1 - go_on
        told: list[tuple[float, tuple[str, int]]] = [(settings.explore, (ANY, 0))]
        rest = 1 - settings.explore
        if last is not None and go_on:
            told.append((rest * go_on * taste.eye, (STYLE, int(self.latents.style[last]))))
            told.append((rest * go_on * (1 - taste.eye), (THEME, int(self.latents.theme[last]))))
        told += [
            (rest * like * taste.eye * w, (STYLE, k))
            for k, w in zip(taste.styles, taste.style_weights, strict=True)
        ]
        told += [
            (rest * like * (1 - taste.eye) * w, (THEME, k))
            for k, w in zip(taste.themes, taste.theme_weights, strict=True)
        ]
        return told

    def distribution(
        self,
        settings: TasteSettings,
        taste: Taste,
        history: Sequence[int] | Ints,
        day: float,
        new_session: float,
    ) -> Floats:
        """(n_items,): the probability of each item to be taken next."""
        taken = np.zeros(len(self.latents.item_ids), dtype=bool)
        taken[np.asarray(history, dtype=np.int64)] = True
        chance = np.zeros(len(taken))
        last = int(history[-1]) if len(history) else None
        for probability, drive in self.drives(settings, taste, last, new_session):
            among, weight = self.weights(drive, taste, taken, day)
            if total := weight.sum():
                chance[among] += probability * weight / total
        return np.asarray(chance / chance.sum(), dtype=np.float64)


def draw_taste(settings: TasteSettings, rng: np.random.Generator) -> Taste:
    kinds = np.full(len(CATEGORIES), settings.other_kinds)
    kinds[rng.permutation(len(CATEGORIES))[:3]] = (1.0, 0.6, 0.35)
    n = settings.favourites
    return Taste(
        eye=float(rng.beta(settings.eye, settings.eye)),
        styles=tuple(rng.choice(STYLES, n, replace=False).tolist()),
        style_weights=tuple(rng.dirichlet(np.full(n, 2.0)).tolist()),
        themes=tuple(rng.choice(len(THEME_NAMES), n, replace=False).tolist()),
        theme_weights=tuple(rng.dirichlet(np.full(n, 2.0)).tolist()),
        kinds=kinds,
    )


def drifted(taste: Taste, rng: np.random.Generator) -> Taste:
    """The taste with one favourite style and one favourite theme replaced."""
    place = int(rng.integers(len(taste.styles)))
    styles, themes = list(taste.styles), list(taste.themes)
    styles[place] = int(rng.choice(np.setdiff1d(np.arange(STYLES), styles)))
    themes[place] = int(rng.choice(np.setdiff1d(np.arange(len(THEME_NAMES)), themes)))
    return Taste(
        taste.eye, tuple(styles), taste.style_weights, tuple(themes), taste.theme_weights, taste.kinds
    )


def draw_log(
    catalogue: Catalogue, settings: TasteSettings | None = None, progress: Progress | None = None
) -> Log:
    """The events of all users, from the catalogue's seed."""
    settings = settings or TasteSettings()
    days = catalogue.settings.days
    rng = np.random.default_rng([catalogue.settings.seed, _EVENTS])
    shop = Shop(catalogue.latents)
    width = len(str(settings.users - 1))
    users, items, times, tastes = [], [], [], []
    for user in range(settings.users):
        taste, history, when = _one_user(shop, settings, days, rng)
        users += [user] * len(history)
        items += history
        times += when
        tastes.append(taste)
        if progress and (user % 100 == 99 or user == settings.users - 1):
            progress(user + 1, settings.users, "customers shopping")
    return Log(
        settings,
        tuple(f"U{k:0{width}d}" for k in range(settings.users)),
        np.array(users, dtype=np.int64),
        np.array(items, dtype=np.int64),
        np.array(times, dtype=np.int64),
        tuple(tastes),
    )


def _one_user(
    shop: Shop, settings: TasteSettings, days: int, rng: np.random.Generator
) -> tuple[Taste, list[int], list[int]]:
    taste = draw_taste(settings, rng)
    # few long histories, many short ones
    n = settings.shortest + round((settings.longest - settings.shortest) * float(rng.beta(1.1, 2.0)))
    opens = rng.random(n) < 1 / settings.session
    opens[0] = True
    starts = np.sort(rng.uniform(rng.uniform(0, days * 0.8), days - 0.5, int(opens.sum())))
    taken = np.zeros(len(shop.latents.item_ids), dtype=bool)
    history: list[int] = []
    when: list[int] = []
    session = -1
    for new in opens.tolist():
        if new:
            session += 1
            now = EPOCH + int(starts[session] * DAY)
            if session and rng.random() < settings.drift:
                taste = drifted(taste, rng)
        else:
            now = when[-1]
        now = max(now, when[-1] if when else 0) + 20 + int(rng.exponential(150))
        told = shop.drives(settings, taste, history[-1] if history else None, float(new))
        among, total, weight = np.zeros(0, np.int64), 0.0, np.zeros(0)
        while total == 0:  # a drive whose candidates are all taken has nothing to offer; another one is drawn
            chances = np.cumsum([probability for probability, _ in told])
            _, drive = told[int(np.searchsorted(chances, rng.random() * chances[-1], side="right"))]
            among, weight = shop.weights(drive, taste, taken, (now - EPOCH) / DAY)
            total = float(weight.sum())
        place = int(np.searchsorted(np.cumsum(weight), rng.random() * total, side="right"))
        item = int(among[min(place, len(among) - 1)])
        taken[item] = True
        history.append(item)
        when.append(now)
    return taste, history, when


def write_events(catalogue: Catalogue, log: Log, folder: str | Path) -> None:
    """events.csv under `folder`: user_id, item_id, timestamp, in the order in which a shop would log them."""
    order = np.lexsort((log.users, log.times))
    ids = catalogue.latents.item_ids
    with (Path(folder) / "events.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "timestamp"])
        writer.writerows([log.user_ids[log.users[k]], ids[log.items[k]], int(log.times[k])] for k in order)
