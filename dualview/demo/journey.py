"""The whole journey on the drawn shop: raw files to similar items, a trained and evaluated recommender, and a
report.

Only calls that any user has are made here, on files that any shop could hand over; the truth about the shop
is opened to check the answers and for nothing else. Each step prints what it found and what the numbers mean.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.errors import Conflict

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from dualview.demo.catalogue import CatalogueSettings
    from dualview.demo.taste import TasteSettings
    from dualview.demo.truth import Truth
    from dualview.evaluation import Report
    from dualview.store import Store
    from featurestore.release import Release

Progress = Callable[[int, int | None, str], None]

RUNS = ("id", "text+image")  # what an item is to the models that are trained, the better one last
OPTIONS: dict[str, Any] = {"length": 40, "lr": 3e-3, "epochs": 15, "patience": 5}
ATTRIBUTES = ("style", "theme", "category", "factory")
CARRIED = {
    "style": "picture only",
    "theme": "words only",
    "category": "both",
    "factory": "neither",
}


@dataclass
class Journey:
    """What the journey found; the report and the tests read it."""

    folder: Path
    truth: Truth
    precision: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # feature -> attribute -> precision@5
    chance: dict[str, float] = field(default_factory=dict)  # attribute -> precision@5 of a random order
    reports: dict[str, Report] = field(default_factory=dict)  # items -> evaluation on the test events
    curves: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # step -> time
    report: Path | None = None

    @property
    def best(self) -> str:
        """The model that validated best. The test events have no say in what is promoted."""
        return max(self.curves, key=lambda items: max(row[2] for row in self.curves[items]))

    def to_dict(self) -> dict[str, Any]:
        """What was found, as figures."""
        return {
            "folder": str(self.folder),
            "report": str(self.report),
            "precision@5": self.precision,
            "chance": self.chance,
            "test": {
                items: {"run": report.run} | report.result.to_dict()["metrics"]
                for items, report in self.reports.items()
            },
            "promoted": self.reports[self.best].run,
            "seconds": self.seconds,
        }

    def metric(self, name: str) -> dict[str, float]:
        """A metric on the test events by model, popularity first."""
        found = {"popularity": next(iter(self.reports.values())).full["popularity"].metrics[name]}
        return found | {items: report.result.metrics[name] for items, report in self.reports.items()}


def run_demo(
    folder: str | Path,
    progress: Progress | None = None,
    *,
    seed: int = 0,
    catalogue: CatalogueSettings | None = None,
    taste: TasteSettings | None = None,
    runs: Sequence[str] = RUNS,
    options: Mapping[str, Any] | None = None,
) -> Journey:
    """Draw a shop into FOLDER/shop, bring it into FOLDER/store, answer, learn, measure, write
    FOLDER/report.html.

    progress: called with (done, total, label); by default a bar on the terminal. seed: of the shop and of
    training. catalogue, taste: other sizes of shop (their own seed wins). runs, options: what is trained, and
    how, where not as RUNS and OPTIONS say.

    Running it again in the same folder computes only what is not there yet and trains again. Raises Conflict
    for a folder that holds another demo."""
    from dataclasses import replace

    from dualview import console
    from dualview.demo.catalogue import CatalogueSettings
    from dualview.demo.taste import TasteSettings

    folder = Path(folder)
    catalogue = catalogue or replace(CatalogueSettings(), seed=seed)
    training = OPTIONS | {"seed": seed} | dict(options or {})
    bar = console.Progress()
    with bar:
        told = progress or bar
        began = time.perf_counter()
        journey = Journey(folder, _shop(folder / "shop", catalogue, taste or TasteSettings(), told))
        journey.seconds["draw the shop"] = time.perf_counter() - began
        with _step(journey, "ingest"):
            store = _filled(folder, told)
        with _step(journey, "materialize and publish"):
            release = _published(store)
        with _step(journey, "find similar items"):
            _find_twins(journey, release)
        for items in runs:
            with _step(journey, f"train on {items}"):
                _train(journey, store, items, training)
        with _step(journey, "evaluate"):
            answer, user = _evaluate(journey, store)
        with _step(journey, "write the report"):
            from dualview.demo.pages import write_page

            journey.report = write_page(journey, release, user, answer)
    _farewell(journey, store, user)
    return journey


def plan_demo(
    folder: str | Path,
    *,
    seed: int = 0,
    catalogue: CatalogueSettings | None = None,
    taste: TasteSettings | None = None,
) -> list[tuple[str, str]]:
    """What `run_demo` would do, as (step, what it writes); raises Conflict as it does."""
    from dataclasses import replace

    from dualview.demo.catalogue import CatalogueSettings
    from dualview.demo.taste import TasteSettings

    folder = Path(folder)
    catalogue = catalogue or replace(CatalogueSettings(), seed=seed)
    taste = taste or TasteSettings()
    drawn = _drawn(folder / "shop", catalogue, taste)
    shop = "is there and would be used" if drawn else f"{catalogue.items:,} products, {taste.users:,} users"
    filled = (folder / "store" / "store.json").exists()
    return [
        ("draw a shop", f"{folder / 'shop'}: {shop}"),
        (
            "ingest, materialize, publish",
            f"{folder / 'store'}: {'what is not there yet' if filled else 'a new store'}",
        ),
        ("train and evaluate", f"{folder / 'store' / 'runs'}: SASRec on items as {' and as '.join(RUNS)}"),
        ("promote", "the run that validates best"),
        ("report", f"{folder / 'report.html'}"),
    ]


@contextmanager
def _step(journey: Journey, name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    journey.seconds[name] = time.perf_counter() - began


def _shop(folder: Path, catalogue: CatalogueSettings, taste: TasteSettings, progress: Progress) -> Truth:
    from dualview import console
    from dualview.demo.truth import make_shop, read_truth

    drawn = _drawn(folder, catalogue, taste)
    truth = read_truth(folder) if drawn else make_shop(folder, catalogue, taste, progress)
    console.table(
        "1  A shop, drawn from a seed",
        ["attribute", "kinds", "told by"],
        [[name, len(set(getattr(truth, name).values())), CARRIED[name]] for name in ATTRIBUTES],
        note=f"{folder}/items.csv, images/ and events.csv are what a shop would hand over. truth.json is not ingested: "
        "it says which attributes each product has, drawn independently, so that answers can be checked.",
    )
    return truth


def _drawn(folder: Path, catalogue: CatalogueSettings, taste: TasteSettings) -> bool:
    """Whether this shop is in the folder. Raises Conflict where another one is."""
    from dualview.demo.truth import drawn_with

    if not (folder / "truth.json").exists():
        return False
    if not drawn_with(folder, catalogue, taste):
        raise Conflict(f"{folder} holds another demo shop", remedy="give another folder, or delete this one")
    return True


def _filled(folder: Path, progress: Progress) -> Store:
    from dualview import console
    from dualview.store import Store

    root = folder / "store"
    store = Store.open(root) if (root / "store.json").exists() else Store.create(root, preset="offline")
    shop = folder / "shop"
    found = store.ingest(shop / "items.csv", shop / "events.csv", progress=progress)
    changes = found.items.to_dict() if found.items is not None else {}
    events = found.events.to_dict() if found.events is not None else {}
    pictures = found.images.to_dict() if found.images is not None else {}
    console.table(
        "2  Ingest",
        ["what", "count"],
        [
            *[
                [f"items {name}", count]
                for name, count in changes.items()
                if isinstance(count, int) and count
            ],
            *[
                [f"events {name}", count]
                for name, count in events.items()
                if isinstance(count, int) and count
            ],
            ["items without a picture", pictures.get("none", 0)],
            ["rows set aside as faulty", sum(found.quarantined.values())],
        ],
        note="Only what changed is written; a second ingest of the same files finds everything unchanged. "
        f"({found.seconds:.1f} s)",
    )
    return store


def _published(store: Store) -> Release:
    from dualview import console

    with console.Progress() as bar:
        made = store.materialize(progress=bar)
    began = time.perf_counter()
    again = store.materialize()
    second = time.perf_counter() - began
    status = store.status()
    release = store.publish() if status.release is None or made.computed else store.release()
    console.table(
        f"3  Features, published as release {release.name}",
        ["feature", "vectors", "no input", "failed", "items/s"],
        [[f.feature, f.ok, f.no_input, f.error, round(f.rate) if f.ok else None] for f in made.features],
        note="A vector for each item from its words, and one from its picture; items without a picture have none. "
        f"A second materialize computed {again.computed} and took {second:.2f} s: only what is new or changed is.",
    )
    return release


def _find_twins(journey: Journey, release: Release) -> None:
    import numpy as np

    from dualview import console
    from dualview.demo.truth import chance, precision_at_5

    truth = journey.truth
    for feature in release.searchable:
        matrix, index = release.matrix(feature), release.index(feature)
        ids = matrix.ids.tolist()
        _, rows = index.search(matrix.values, 5, exclude=list(np.arange(len(ids))[:, None]))
        near = {
            item: [ids[row] for row in found if row >= 0]
            for item, found in zip(ids, rows.tolist(), strict=True)
        }
        journey.precision[feature] = {name: precision_at_5(near, getattr(truth, name)) for name in ATTRIBUTES}
    journey.chance = {name: chance(getattr(truth, name), ids) for name in ATTRIBUTES}
    console.table(
        "4  Similar items: precision@5 against the truth",
        ["attribute", "told by", *[f"by {name}" for name in journey.precision], "by chance"],
        [
            [
                name,
                CARRIED[name],
                *[found[name] for found in journey.precision.values()],
                journey.chance[name],
            ]
            for name in ATTRIBUTES
        ],
        note="Of the five nearest products, the share with the query's own style (palette and pattern), theme etc. "
        "1 is perfect; by chance is what five random products share. Style must be found by image and not by text, "
        "theme by text and not by image; the factory, which nothing tells, by neither.",
    )


def _train(journey: Journey, store: Store, items: str, options: Mapping[str, Any]) -> None:
    from dualview import console
    from dualview.evaluation import evaluate
    from dualview.training import fit

    console.out.print(f"\n[bold]5  SASRec, items as {items}[/bold]")
    with console.EpochLog() as log:
        run = fit(store, items=items, progress=log, **options)
    journey.curves[items] = [
        (row["epoch"], row["loss"], row["valid_ndcg@10"]) for row in run.history() if "valid_ndcg@10" in row
    ]
    journey.reports[items] = evaluate(store, run.name)


def _evaluate(journey: Journey, store: Store) -> tuple[pa.Table, str]:
    """Figures of all models; recommendations of the best one, promoted, for one user."""
    from dualview import console
    from dualview.training import promote
    from recommender.retrieve import Retriever

    ndcg, hits, cover = (journey.metric(name) for name in ("NDCG@10", "HR@10", "coverage@10"))
    oracle = journey.truth.oracle

    def times(value: float) -> str:
        return f"{value / ndcg['popularity']:.1f}"

    console.table(
        "6  Recommendations: each user's last event, ranked among all products",
        ["model", "NDCG@10", "HR@10", "coverage@10", "x popularity"],
        [
            *[[name, ndcg[name], hits[name], cover[name], times(ndcg[name])] for name in ndcg],
            [
                "oracle",
                oracle["oracle NDCG@10"],
                oracle["oracle HR@10"],
                None,
                times(oracle["oracle NDCG@10"]),
            ],
        ],
        note="HR@10: share of users whose next product is among the ten recommended. NDCG@10: the same, but a place "
        "near the top counts more. Coverage: share of the catalogue that anybody is shown. The oracle "
        "knows the probabilities that the log was drawn from, and the tastes that a model has to guess: the ceiling.",
    )
    run = promote(store, journey.reports[journey.best].run)
    retriever = Retriever.open(store)
    user = _telling_user(journey, retriever)
    answer = retriever.recommend(user, k=5)
    log = retriever.log
    taken = log.item_ids[log.items[log.users == log.user_ids.tolist().index(user)]].tolist()
    truth = journey.truth
    catalogue = {row["item_id"]: row["title"] for row in retriever.release.catalogue.to_pylist()}
    shown = [(item, "taken") for item in taken[-5:]] + [
        (item, "next?") for item in answer["item_id"].to_pylist()
    ]
    console.table(
        f"7  For user {user}, by {run.name}",
        ["", "item", "title", "style", "theme"],
        [[what, item, catalogue[item], truth.style[item], truth.theme[item]] for item, what in shown],
        note="A user picked for plain favourites, not a typical one. "
        "Style and theme are from the truth: the model never saw their names, only pictures' and texts' vectors.",
    )
    return answer, user


def _telling_user(journey: Journey, retriever: Any) -> str:
    """A user with a long history and plain favourites, both a style and a theme."""
    log = retriever.log
    styles = journey.truth.style

    def clarity(user: int) -> float:
        items = log.item_ids[log.items[log.offsets[user] : log.offsets[user + 1]]].tolist()[-12:]
        counts = Counter(styles[item] for item in items).most_common(1)
        themes = Counter(journey.truth.theme[item] for item in items).most_common(1)
        return min(counts[0][1], themes[0][1]) + 0.1 * counts[0][1] if len(items) == 12 else 0.0

    return str(log.user_ids[max(range(min(log.n_users, 1000)), key=clarity)])


def _farewell(journey: Journey, store: Store, user: str) -> None:
    from dualview import console

    console.table(
        "Time",
        ["step", "seconds"],
        [[name, f"{seconds:.1f}"] for name, seconds in journey.seconds.items()]
        + [["in all", f"{sum(journey.seconds.values()):.1f}"]],
    )
    item = next(iter(journey.truth.style))
    console.say(
        f"\nreport: {journey.report}\ngo on: dualview similar {store.root} {item} --feature image\n"
        f"       dualview similar {store.root} --text 'a lamp for sailing'\n"
        f"       dualview recommend {store.root} {user} --where 'price < 30'"
    )


def labels_of(journey: Journey, ids: np.ndarray[Any, Any], attribute: str) -> list[str]:
    """The true attribute of each item."""
    known: dict[str, str] = getattr(journey.truth, attribute)
    return [known[str(item)] for item in ids]
