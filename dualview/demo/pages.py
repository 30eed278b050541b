"""The demo's report: what the journey found, as sections of a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dualview.demo.drawing import PALETTES
from dualview.demo.journey import ATTRIBUTES, CARRIED, Journey, labels_of
from dualview.report import figures
from dualview.report.page import (
    CatalogueMap,
    ContactSheet,
    KeyFigure,
    KeyFigures,
    MapPanel,
    MetricsTable,
    Picture,
    SheetRow,
    TrainingCurve,
    build_report,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore.release import Release

ON_MAP = 700  # items; enough to see groups, few enough for t-SNE to take seconds
QUERIES = 4  # a contact sheet


class Pages:
    """Looks up titles and pictures of items while sections are made."""

    def __init__(self, journey: Journey, release: Release) -> None:
        self.journey, self.release, self.truth = journey, release, journey.truth
        table = release.catalogue.select(["item_id", "title", "image", "price"])
        self.items = {row["item_id"]: row for row in table.to_pylist()}

    def photo(self, item: str) -> bytes | None:
        image = self.items[item]["image"]
        return (self.journey.folder / "shop" / image).read_bytes() if image else None

    def picture(self, item: str, score: float | None = None, match: bool | None = None) -> Picture:
        return Picture(
            self.items[item]["title"], self.photo(item), f"theme: {self.truth.theme[item]}", score, match
        )

    def key(self) -> KeyFigures:
        found, chance, ndcg = self.journey.precision, self.journey.chance, self.journey.metric("NDCG@10")
        best = ndcg[self.journey.best]
        return KeyFigures(
            "At a glance",
            [
                KeyFigure(
                    f"{len(self.items):,}", "products", f"and {self.release.n_events:,} events of customers"
                ),
                KeyFigure(
                    f"{found['image']['style']:.0%}",
                    "same style, by image",
                    f"of the five nearest; by text {found['text']['style']:.1%}, by chance {chance['style']:.1%}",
                ),
                KeyFigure(
                    f"{found['text']['theme']:.0%}",
                    "same theme, by text",
                    f"of the five nearest; by image {found['image']['theme']:.1%}, by chance {chance['theme']:.1%}",
                ),
                KeyFigure(
                    f"{best / ndcg['popularity']:.1f} ×",
                    "popularity's NDCG@10",
                    f"{best:.3f} against {ndcg['popularity']:.3f}",
                ),
                KeyFigure(f"{sum(self.journey.seconds.values()):.0f} s", "from nothing to here"),
            ],
        )

    def sheet(self, feature: str, attribute: str, title: str, caption: str) -> ContactSheet:
        """Queries spread over the catalogue, each of another kind of product."""
        matrix, index = self.release.matrix(feature), self.release.index(feature)
        labels: dict[str, str] = getattr(self.truth, attribute)
        rows: list[SheetRow] = []
        kinds: set[str] = set()
        for place in np.random.default_rng(5).permutation(len(matrix)):
            item = str(matrix.ids[place])
            if len(rows) == QUERIES or self.truth.category[item] in kinds or not self.items[item]["image"]:
                continue
            kinds.add(self.truth.category[item])
            scores, found = index.search(matrix.values[place], 5, exclude=[[place]])
            near = [
                self.picture(other, float(score), labels[other] == labels[item])
                for other, score in zip((str(matrix.ids[row]) for row in found[0]), scores[0], strict=True)
            ]
            rows.append(SheetRow(self.picture(item), near))
        return ContactSheet(title, caption, rows, match_label=f"same {attribute}")

    def twins(self) -> MetricsTable:
        precision, chance = self.journey.precision, self.journey.chance
        return MetricsTable(
            "Who finds what",
            ["attribute", "told by", *[f"by {feature}" for feature in precision], "by chance"],
            [
                [name, CARRIED[name], *[found[name] for found in precision.values()], chance[name]]
                for name in ATTRIBUTES
            ],
            "Precision@5: of the five nearest products, the share with the query's own attribute.",
            [
                (
                    "style",
                    "Palette and pattern, seen and never named: text should do no better than chance.",
                ),
                (
                    "theme",
                    "What the words are about, never drawn: image should do no better than chance.",
                ),
                ("category", "The kind of product, in outline and words: both may find it."),
                ("factory", "Told by nothing: whoever finds it has cheated."),
            ],
        )

    def maps(self) -> CatalogueMap:
        panels = []
        rng = np.random.default_rng(0)
        mosaic: MapPanel | None = None
        for feature, attribute in (("image", "style"), ("text", "theme")):
            matrix = self.release.matrix(feature)
            some = np.sort(rng.permutation(len(matrix))[:ON_MAP])
            points = figures.project(np.asarray(matrix.values[some]))
            labels = labels_of(self.journey, matrix.ids[some], attribute)
            if feature == "image":
                labels = [label.split()[0] for label in labels]
                colours = {name: three[0] for name, three in PALETTES.items()}
                panels.append(
                    MapPanel(
                        "By image, coloured by palette; small groups are patterns.",
                        points,
                        labels,
                        colours,
                    )
                )
                photos = [self.photo(str(item)) for item in matrix.ids[some]]
                mosaic = MapPanel("The first map in pictures, gaps closed.", points, pictures=photos)
            else:
                panels.append(MapPanel("By text, coloured by theme.", points, labels))
        return CatalogueMap(
            "Maps of the catalogue",
            f"t-SNE of {ON_MAP} products. What lies together is similar; how far apart groups lie means nothing.",
            [*panels, *([mosaic] if mosaic else [])],
        )

    def training(self) -> TrainingCurve:
        return TrainingCurve(
            "Training",
            "Loss falls on the events that are learnt from; NDCG@10 is measured on each user's last event but "
            "one, which is not. The dot marks the epoch that was kept.",
            self.journey.curves,
        )

    def metrics(self) -> MetricsTable:
        ndcg, hits, cover = (self.journey.metric(name) for name in ("NDCG@10", "HR@10", "coverage@10"))
        reports = self.journey.reports
        groups = {items: report.result.groups for items, report in reports.items()}
        groups["popularity"] = next(iter(reports.values())).full["popularity"].groups
        rows: list[list[object]] = []
        for name in ndcg:
            tail = groups[name]["items:tail"]["NDCG@10"]
            rows.append(
                [f"SASRec on {name}" if name in reports else name, ndcg[name], hits[name], tail, cover[name]]
            )
        oracle = self.truth.oracle
        rows.append(["oracle", oracle["oracle NDCG@10"], oracle["oracle HR@10"], None, None])
        users = len(next(iter(reports.values())).result.users)
        return MetricsTable(
            "How good the recommendations are",
            ["model", "NDCG@10", "HR@10", "NDCG@10, tail", "coverage@10"],
            rows,
            f"The last event of each of {users:,} users, ranked among all products the user had not taken yet.",
            [
                ("HR@10", "Share of users whose next product is among the ten that are recommended."),
                (
                    "NDCG@10",
                    "The same, but a place near the top counts more: 1 first, .63 second, 0 beyond ten.",
                ),
                ("tail", "Only users whose next product is not among the fifth that sells best."),
                ("coverage", "Share of the catalogue that is recommended to anybody."),
                ("popularity", "Recommends everybody what sells best: what a model has to beat."),
                (
                    "oracle",
                    "Ranks by the probabilities that the log was drawn from, knowing each user's taste of the day: "
                    "the ceiling. A model has to guess the taste from the log.",
                ),
            ],
        )

    def recommended(self, user: str, answer: pa.Table) -> ContactSheet:
        events = self.release.events()
        taken = [
            item
            for name, item in zip(events["user_id"].to_pylist(), events["item_id"].to_pylist(), strict=True)
            if name == user
        ]
        style, theme = self.truth.style, self.truth.theme
        liked = {style[item] for item in taken[-8:]}, {theme[item] for item in taken[-8:]}

        def known(item: str) -> bool:
            return style[item] in liked[0] or theme[item] in liked[1]

        latest = self.picture(taken[-1])
        scored = zip(answer["item_id"].to_pylist(), answer["score"].to_pylist(), strict=True)
        return ContactSheet(
            f"What user {user} is recommended",
            "A user picked for plain favourites, not a typical one. "
            "Above, what the user took, the latest first; below, what the model puts next. A mark: style or "
            "theme is that of one of the user's last eight products.",
            [
                SheetRow(
                    latest,
                    [self.picture(item) for item in taken[-2:-7:-1]],
                    "Taken, latest first",
                ),
                SheetRow(
                    latest,
                    [self.picture(i, s, known(i)) for i, s in scored],
                    "Recommended next",
                ),
            ],
            query_label="latest",
            match_label="known taste",
        )


def write_page(journey: Journey, release: Release, user: str, answer: pa.Table) -> Path:
    pages = Pages(journey, release)
    return build_report(
        journey.folder / "report.html",
        title="From raw files to recommendations",
        subtitle="A shop that the project drew itself: its pictures show one thing and its words tell another, so "
        "whatever is found below can be checked against the truth.",
        sections=[
            pages.key(),
            pages.sheet(
                "image",
                "style",
                "Similar by image",
                "Look at colours and pattern: neighbours share them across kinds of product, whatever is said of them.",
            ),
            pages.sheet(
                "text",
                "theme",
                "Similar by text",
                "Read the titles: neighbours are told about alike, and look as they please.",
            ),
            pages.twins(),
            pages.maps(),
            pages.recommended(user, answer),
            pages.metrics(),
            pages.training(),
        ],
        footer=f"Store {journey.folder / 'store'}, release {release.name}, published {release.created}.",
    )
