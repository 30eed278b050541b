"""`Store` as users meet it: the feature store plus the verbs of the upper floors, each loaded when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore import store as ground
from featurestore.errors import BadInput, did_you_mean
from featurestore.query import BETA, Mode, Query

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore.export import ExportReport
    from featurestore.forget import ForgetReport
    from featurestore.gc import GcReport
    from featurestore.lineage import Node
    from featurestore.status import StoreStatus
    from ingest.describe.look import Asking
    from ingest.estimate import MaterializeEstimate
    from ingest.imported import ImportReport
    from ingest.load import IngestReport
    from ingest.materialize import MaterializeReport

PRESETS = ("offline", "small", "paper")


def preset_toml(name: str) -> str:
    """Text of a preset's features.toml. Raises BadInput for an unknown name."""
    if name not in PRESETS:
        raise BadInput(f"unknown preset '{name}'", remedy=did_you_mean(name, PRESETS))
    return (resources.files("dualview") / "presets" / f"{name}.toml").read_text(encoding="utf-8")


class Store(ground.Store):
    """A folder of LanceDB tables with the features computed from them. See `featurestore.store.Store` for reading.

    >>> store = Store.create("shop", preset="offline")            # doctest: +SKIP
    >>> store.ingest("items.csv", interactions="events.csv")      # doctest: +SKIP
    >>> store.materialize(); store.publish()                      # doctest: +SKIP
    >>> store.similar("B00123", where="price < 20")               # doctest: +SKIP
    """

    @classmethod
    def create(cls, root: str | Path, features_toml: str | None = None, *, preset: str = "offline") -> Store:
        """Make an empty store.

        root: folder to make. features_toml: text of a features.toml; without it, the preset's
        ("offline" needs no downloads, "small" a small text and a CLIP model, "paper" larger ones).

        Raises BadInput for an unknown preset, Conflict where the folder holds something else already.
        """
        made = super().create(root, preset_toml(preset) if features_toml is None else features_toml)
        assert isinstance(made, Store)
        return made

    def ingest(
        self,
        items: Any = None,
        interactions: Any = None,
        *,
        format: str | None = None,
        mapping: str | Path | None = None,
        images_root: str | Path | None = None,
        remove_missing: bool = False,
        replace_interactions: bool = False,
        keep_images: bool = False,
        dry_run: bool = False,
        wait: float | None = None,
        progress: Callable[[int, int | None, str], None] | None = None,
    ) -> IngestReport:
        """Read a catalogue and a log, each a path (csv, jsonl, parquet, folder of images), an Arrow table or pandas.

        format: `items` is the folder of a public data set, such as "movielens-1m"; see `ingest.adapters`.
        dry_run: report what would change, and write nothing.
        """
        from ingest.load import ingest

        return ingest(
            self,
            items,
            interactions,
            format=format,
            mapping=mapping,
            images_root=images_root,
            remove_missing=remove_missing,
            replace_interactions=replace_interactions,
            keep_images=keep_images,
            dry_run=dry_run,
            wait=wait,
            progress=progress,
        )

    def status(self, *, read_only: bool = False) -> StoreStatus:
        """What is current; see `featurestore.status.read`. What encoders and model folders say counts too."""
        from featurestore import status
        from ingest.resolve import Judgement

        return status.read(self, read_only=read_only, judge=Judgement(self, read_only=read_only))

    def prompt(self, feature: str, item: str) -> Asking:
        """What a described feature asks about an item, ready to be tried; see `ingest.describe.look.prompt`."""
        from ingest.describe.look import prompt

        return prompt(self, feature, item)

    def estimate(self, features: Sequence[str] | None = None, **options: Any) -> MaterializeEstimate:
        """What `materialize` would compute and how long it would take; see `ingest.estimate.estimate`."""
        from ingest.estimate import estimate

        return estimate(self, features, **options)

    def materialize(self, features: Sequence[str] | None = None, **options: Any) -> MaterializeReport:
        """Compute whatever is not current; see `ingest.materialize.materialize`."""
        from ingest.materialize import materialize

        return materialize(self, features, **options)

    def preferences(self, *, backend: str, dry_run: bool = False, **options: Any) -> Any:
        """Make what is missing of users' preferences; returns a `PreferenceReport`, with dry_run a `PreferencePlan`.

        options: fields of `recommender.msr.preferences_recipe.PreferenceOptions` (model, block, last, direct, summary
        ...), and arguments of `recommender.msr.preferences_run.compute` (split, points, users, sample ...).
        """
        from recommender.msr import preferences_run
        from recommender.msr.preferences_recipe import PreferenceOptions

        own = {name: options.pop(name) for name in PreferenceOptions.model_fields.keys() & options.keys()}
        made = PreferenceOptions.of(backend=backend, **own)
        return (preferences_run.plan if dry_run else preferences_run.compute)(self, made, **options)

    def import_vectors(self, feature: str, file: str | Path, **options: Any) -> ImportReport:
        """Vectors that somebody else computed, as the values of a feature; see `ingest.imported.import_vectors`."""
        from ingest.imported import import_vectors

        return import_vectors(self, feature, file, **options)

    def import_texts(self, feature: str, file: str | Path, **options: Any) -> ImportReport:
        """The same for texts; see `ingest.imported.import_texts`."""
        from ingest.imported import import_texts

        return import_texts(self, feature, file, **options)

    def export(
        self,
        out: str | Path,
        *,
        to: str = "parquet",
        features: Sequence[str] | None = None,
        release: str = "latest",
        overwrite: bool = False,
        dry_run: bool = False,
    ) -> ExportReport:
        """Write a release as parquet, npy, recbole or as it is into a folder; see `featurestore.export.export`."""
        from featurestore.export import export

        served = self.release(release)
        return export(served, out, to=to, features=features, overwrite=overwrite, dry_run=dry_run)

    def gc(
        self,
        *,
        keep: int | None = None,
        old_recipes: bool = False,
        dry_run: bool = False,
        wait: float | None = None,
    ) -> GcReport:
        """Free what neither a release nor a run needs; see `featurestore.gc.collect`."""
        from dualview import housekeeping

        return housekeeping.gc(self, keep=keep, old_recipes=old_recipes, dry_run=dry_run, wait=wait)

    def forget(
        self,
        *,
        users: Sequence[str] = (),
        items: Sequence[str] = (),
        dry_run: bool = False,
        wait: float | None = None,
    ) -> ForgetReport:
        """Erase users and items from tables, releases and runs; see `featurestore.forget.forget`."""
        from dualview import housekeeping

        return housekeeping.forget(self, users=users, items=items, dry_run=dry_run, wait=wait)

    def trace(self, target: str) -> Node:
        """Where "item:ID", "feature:NAME", "release:NAME" or "run:NAME" comes from; see `dualview.lineage.trace`."""
        from dualview.lineage import trace

        return trace(self, target)

    def similar(
        self,
        item: str | Sequence[str] | None = None,
        *,
        unlike: str | Sequence[str] = (),
        text: str | None = None,
        image: str | Path | bytes | None = None,
        feature: str | None = None,
        features: Mapping[str, float] | Sequence[str] | None = None,
        mode: Mode = "vector",
        where: str | None = None,
        k: int = 10,
        diversity: float = 0.0,
        beta: float = BETA,
        explain: bool = False,
        exact: bool = False,
        release: str = "latest",
        device: str = "auto",
    ) -> pa.Table:
        """The k items most like an item, several items, a text, a picture, or any of these together.

        feature: whose vectors to compare; features: several, each with its weight ({"text": 0.3, "image": 0.7}).
        Without either, one is chosen that fits the query. The other arguments are those of `featurestore.query.Query`.

        Returns item_id, score and the catalogue's columns, best first; see docs/similar.md for what a score means.
        """
        if feature is not None and features is not None:
            raise BadInput(
                "give feature or features, not both", remedy="features={'text': 0.3, 'image': 0.7}"
            )
        weights = {feature: 1.0} if feature is not None else features
        if weights is not None and not isinstance(weights, Mapping):
            weights = dict.fromkeys([weights] if isinstance(weights, str) else weights, 1.0)
        query = Query(
            items=_names(item),
            unlike=_names(unlike),
            text=text,
            image=image,
            features=weights,
            mode=mode,
            where=where,
            k=k,
            diversity=diversity,
            beta=beta,
            explain=explain,
            exact=exact,
        )
        return self.search(query, release=release, device=device)

    def search(self, query: Query, *, release: str = "latest", device: str = "auto") -> pa.Table:
        """Answer a query; see `featurestore.search.search`. Whoever asks often keeps the release and calls that."""
        from featurestore.search import search
        from ingest.encode.query import ReleaseEncoder

        served = self.release(release)
        plain = query.text is None and query.image is None
        return search(served, query, None if plain else ReleaseEncoder(self, served, device))


def _names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Ids, each once, in their order."""
    return tuple(dict.fromkeys([given] if isinstance(given, str) else given or ()))
