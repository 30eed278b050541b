"""`Store`: one folder, the tables in it, and every question that can be answered without computing a vector."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from featurestore import definitions as defs
from featurestore import features, files, journal, pending, schema, status, versions
from featurestore.artifacts import Artifacts
from featurestore.definitions import Definitions, Lock, Locked
from featurestore.errors import BadInput, Conflict, DiskError, ErrorGroup, NotFound
from featurestore.lock import WriterLock
from featurestore.recipe import Recipe
from featurestore.schema import ValueKind
from featurestore.status import StoreStatus
from featurestore.tables import Tables

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore.diff import ReleaseDiff
    from featurestore.preview import PublishPlan
    from featurestore.rederive import RebuildReport
    from featurestore.release import Release
    from featurestore.rollback import RollbackReport

MANIFEST = "store.json"
OPEN_RELEASES = 2  # kept open at a time: what is served, and what it is compared with


class Store:
    """An embedding feature store in a local folder.

    One process writes at a time (see `lock`); any number read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tables = Tables(root / "tables")
        self.artifacts = Artifacts(root / "artifacts")
        self._writing = False
        self._releases: dict[str, Release] = {}

    # ---- making and opening

    @classmethod
    def create(cls, root: str | Path, features_toml: str) -> Self:
        """Make an empty store. Raises BadInput for a bad features.toml, Conflict where something else is."""
        folder, _ = cls.plan_create(root, features_toml)
        try:
            with files.disk_errors(str(folder)):
                folder.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BadInput(
                f"{folder} cannot be made ({error.strerror})",
                remedy="choose a path inside a folder that is there",
            ) from error
        files.write_text(folder / defs.FILE, features_toml)
        (folder / "tables").mkdir()
        made = datetime.now(UTC).isoformat(timespec="seconds")
        files.write_json(
            folder / MANIFEST, {"format": schema.FORMAT, "id": uuid.uuid4().hex, "created": made}
        )
        journal.record(folder, "init", features=list(defs.parse(features_toml).features))
        return cls(folder)

    @classmethod
    def plan_create(cls, root: str | Path, features_toml: str) -> tuple[Path, Definitions]:
        """The folder that `create` would make and the features declared in it. Raises as `create` does."""
        folder = _local(root)
        if (folder / MANIFEST).exists():
            raise Conflict(f"{folder} is a store already", remedy="choose another folder, or use it as it is")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise Conflict(
                f"{folder} is there and not empty", remedy="choose a folder that does not exist yet"
            )
        return folder, defs.parse(features_toml)

    @classmethod
    def open(cls, root: str | Path) -> Self:
        """Open a store. Raises NotFound where there is none, BadInput for an object store or a newer format."""
        folder = _local(root)
        if not (folder / MANIFEST).exists():
            raise NotFound(f"{folder} is not a store", remedy=f"make one: dualview init {root}")
        try:
            found = files.read_json(folder / MANIFEST)["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{folder / MANIFEST} cannot be read: {type(error).__name__}: {error}",
                remedy='restore it from a copy; all it has to hold is {"format": 1}',
            ) from error
        if found != schema.FORMAT:
            raise BadInput(
                f"{folder} has format {found}, this version reads format {schema.FORMAT}",
                remedy="use the version of dualview that wrote it, or a newer one",
            )
        return cls(folder)

    @contextmanager
    def lock(self, verb: str, wait: float | None = None) -> Iterator[None]:
        """Hold the writer's lock. Raises Conflict that names the holder.

        What an earlier verb began and a kill interrupted is finished first; after the block, old versions of tables are
        taken away where there are many (see `featurestore.versions`).
        """
        with WriterLock(self.root).hold(verb, wait):
            if self._writing:  # a call inside a call
                yield
                return
            self._writing = True
            try:
                pending.finish(self)
                yield
                with suppress(DiskError):  # the verb is done; upkeep comes again
                    versions.tidy(self.tables)
            finally:
                self._writing = False

    # ---- features and their recipes

    @property
    def definitions(self) -> Definitions:
        return defs.read(self.root / defs.FILE)

    def definitions_text(self) -> str:
        """features.toml as it stands. Raises NotFound and BadInput as `definitions` does."""
        return defs.text(self.root / defs.FILE)

    @cached_property
    def _lock_file(self) -> Lock:
        return Lock(self.root / defs.LOCK_FILE)

    def locked(self) -> dict[str, Locked]:
        """What each feature was resolved to, by name."""
        return self._lock_file.read()

    def recipes(self) -> dict[str, Recipe]:
        """The active recipe of every feature that was resolved."""
        return {name: locked.recipe for name, locked in self.locked().items()}

    def recipe(self, feature: str) -> Recipe | None:
        """The active recipe, or None while the feature has never been resolved."""
        return self.recipes().get(self.definitions.get(feature).name)

    def lock_recipe(
        self,
        feature: str,
        recipe: Recipe,
        fitted: dict[str, Any] | None = None,
        files: dict[str, str] | None = None,
    ) -> None:
        """Make a recipe the active one; fitted, files: as in `Locked`. The caller holds the writer's lock."""
        digest = self.definitions.hash(feature)
        self._lock_file.put(feature, Locked(digest, recipe, fitted, files or {}))

    def outdated(self, feature: str) -> str | None:
        """Why the active recipe is not what features.toml asks for today, or None if it is."""
        return status.outdated(self.root, self.definitions, self.locked(), feature)

    def feature_table(self, feature: str) -> str:
        """Name of the table that holds the active recipe's values."""
        recipe = self.recipe(feature)
        if recipe is None:
            raise NotFound(
                f"feature '{feature}' was never computed", remedy=f"dualview materialize {self.root}"
            )
        return recipe.table(feature)

    def plan(self, feature: str) -> pa.Table:
        """Where every live item's cell stands; see `featurestore.features.plan`."""
        return features.plan(self.tables, self.recipes(), feature)

    # ---- reading

    def matrix(
        self, feature: str, release: str | None = None
    ) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float32]]:
        """Vectors of a feature: ids (n,) sorted, values (n, d) float32; items without a vector are not in it.

        release: a name or "latest" gives that release's matrix, memory-mapped; None gives today's table, read into
        memory. Raises NotFound, and BadInput for a feature whose values are not single vectors.
        """
        if release is not None:
            served = self.release(release).matrix(feature)
            if served.offsets is not None:
                raise BadInput(
                    f"feature '{feature}' holds several vectors an item", remedy="use Release.matrix"
                )
            return served.ids, served.values
        recipe = self.recipe(feature)
        table = self.feature_table(feature)
        assert recipe is not None
        if recipe.value is not ValueKind.VECTOR or recipe.dim is None:
            raise BadInput(
                f"feature '{feature}' holds {recipe.value}, not one vector an item", remedy="use Store.sql"
            )
        if not self.tables.exists(table):
            raise NotFound(
                f"feature '{feature}' was never computed", remedy=f"dualview materialize {self.root}"
            )
        return features.read_matrix(self.tables.dataset(table), recipe.dim, keep=self._live_if_some_left())

    def _live_if_some_left(self) -> npt.NDArray[np.str_] | None:
        """Ids of the live items, or None when no item was ever taken out (then every row is live)."""
        items = self.tables.dataset(schema.ITEMS)
        if not items.count_rows(f"{schema.DELETED} = true"):
            return None
        live = items.to_table(columns=[schema.ITEM_ID], filter=f"{schema.DELETED} IS NOT TRUE")
        return np.sort(np.asarray(live[schema.ITEM_ID].to_pylist(), dtype=np.str_))

    def sql(self, query: str, release: str | None = None) -> pa.Table:
        """Answer a read-only SQL query; see `featurestore.sql.query`."""
        from featurestore import sql

        return sql.query(self, query, release=release)

    def errors(
        self, examples: int | None = 3, *, feature: str | None = None, code: str | None = None
    ) -> list[ErrorGroup]:
        """What went wrong and was not mended since; see `featurestore.failures.groups`."""
        from featurestore import failures

        return failures.groups(self, examples, feature=feature, code=code)

    def status(self, *, read_only: bool = False) -> StoreStatus:
        """What is current; see `featurestore.status.read`."""
        return status.read(self, read_only=read_only)

    # ---- releases

    def publish(
        self,
        *,
        tag: str | None = None,
        allow_stale: bool = False,
        recall: float = 0.99,
        wait: float | None = None,
    ) -> Release:
        """Make a release of today's tables; see `featurestore.publish.publish`."""
        from featurestore import publish

        return publish.publish(self, tag=tag, allow_stale=allow_stale, recall=recall, wait=wait)

    def plan_publish(
        self, *, tag: str | None = None, allow_stale: bool = False, recall: float = 0.99
    ) -> PublishPlan:
        """What `publish` would make; see `featurestore.preview.publication`. Raises as `publish` does."""
        from featurestore import preview

        return preview.publication(self, tag=tag, allow_stale=allow_stale, recall=recall)

    def rebuild(self, release: str, *, dry_run: bool = False, wait: float | None = None) -> RebuildReport:
        """Make lost or damaged derived files of a release again; see `featurestore.rederive.rebuild`."""
        from featurestore import rederive

        return rederive.rebuild(self, release, dry_run=dry_run, wait=wait)

    def release(self, name: str = "latest") -> Release:
        """Open a release. Raises NotFound.

        The last ones stay open, with what was read of them, while their manifests are as they were.
        """
        from featurestore import release

        found = release.open(self.root, name)
        kept = self._releases.get(found.name)
        if kept is not None and kept.manifest == found.manifest:
            return kept
        newest = list(self._releases.items())[1 - OPEN_RELEASES :]
        self._releases = dict(newest) | {found.name: found}
        return found

    def releases(self) -> list[Release]:
        """All releases, newest first."""
        from featurestore import release

        return release.every(self.root)[::-1]

    def diff(self, before: str, after: str = "latest") -> ReleaseDiff:
        """What is other in one release than in another; "today" stands for the tables as they are. See
        `featurestore.diff`.
        """
        from featurestore import diff

        return diff.diff(self, before, after)

    def rollback(
        self, release: str, *, discard: bool = False, dry_run: bool = False, wait: float | None = None
    ) -> RollbackReport:
        """Make the store what it was at a release, and publish that; see `featurestore.rollback`."""
        from featurestore import rollback

        return rollback.rollback(self, release, discard=discard, dry_run=dry_run, wait=wait)

    def history(
        self, *, verb: str | None = None, since: str | None = None, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """What was written, oldest first; see `featurestore.journal.select`."""
        return journal.select(journal.read(self.root), verb=verb, since=since, limit=limit)


def _local(root: str | Path) -> Path:
    text = str(root)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):  # a Path has made one slash of the two
        raise BadInput(
            f"'{text}' is not a local folder",
            remedy="keep the store on a local disk: its lock and its memory-mapped files need one",
        )
    return Path(text).expanduser().resolve()
