"""What a long verb has kept when it is interrupted, and what to do next: read from the disk, so that it is true.

Each is a context manager around the verb. It remembers little before (versions, names) and looks again if a signal
comes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from featurestore import schema
from featurestore.interrupts import keeping

if TYPE_CHECKING:
    from featurestore.carried import Carried
    from featurestore.store import Store
    from recommender.runs import Run

KINDS = {
    schema.IMAGES: "pictures",
    schema.ITEMS: "items",
    schema.INTERACTIONS: "events",
    schema.QUARANTINE: "what was set aside",
}
AGAIN = "run the same command again"


def ingest(store: Store) -> AbstractContextManager[None]:
    def versions() -> dict[str, int]:
        tables = store.tables
        return {name: tables.version(name) for name in KINDS if tables.exists(name) and tables.count(name)}

    before = versions()

    def tell() -> str:
        after = versions()
        written = [kind for name, kind in KINDS.items() if after.get(name) != before.get(name)]
        if not written:
            return f"nothing was written; {AGAIN} to ingest"
        return f"written so far, and kept: {', '.join(written)}; {AGAIN} to complete it"

    return keeping(tell)


def materialize(store: Store) -> AbstractContextManager[None]:
    begun = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")

    def tell() -> str:
        done = {}
        for name, recipe in store.recipes().items():
            table = recipe.table(name)
            if store.tables.exists(table):
                since = f"{schema.UPDATED_AT} >= timestamp '{begun}'"
                done[name] = int(store.tables.dataset(table).count_rows(since))
        cells = ", ".join(f"{count:,} of {name}" for name, count in done.items() if count)
        kept = f"cells committed, and kept: {cells}" if cells else "no cell was committed"
        return f"{kept}; {AGAIN} to compute the rest"

    return keeping(tell)


def preferences(store: Store) -> AbstractContextManager[None]:
    begun = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")

    def tell() -> str:
        count, name = 0, schema.PREFERENCES
        if store.tables.exists(name):
            since = f"{schema.UPDATED_AT} >= timestamp '{begun}'"
            count = int(store.tables.dataset(name).count_rows(since))
        kept = f"states committed, and kept: {count:,}" if count else "no state was committed"
        return f"{kept}; what a model answered since is kept too; {AGAIN} to make the rest"

    return keeping(tell)


def publish(store: Store) -> AbstractContextManager[None]:
    from featurestore import release as releases

    before = releases.names(store.root)

    def tell() -> str:
        made = [name for name in releases.names(store.root) if name not in before]
        if made:
            return f"release {made[-1]} was made, and is whole"
        left = f"release {before[-1]} is still the latest" if before else "nothing is published yet"
        return f"no release was made, {left}; {AGAIN} to publish"

    return keeping(tell)


def train(store: Store | Carried, resume: str | None, verb: str = "train") -> AbstractContextManager[None]:
    from recommender.runs import list_runs, open_run

    before = {run.name for run in list_runs(store.root)}

    def tell() -> str:
        new = [run for run in list_runs(store.root) if run.name not in before]
        run = open_run(store.root, resume, None) if resume is not None else new[0] if new else None
        if run is None:
            return f"no run was begun; {AGAIN} to train"
        epochs = len(run.history())
        saved = (
            f"{epochs:,} {'epoch is' if epochs == 1 else 'epochs are'} saved"
            if epochs
            else "no epoch is saved yet"
        )
        if inside := _batches_inside(run):
            saved += f", and {inside:,} batches of the next one"
        return f"{run.name}: {saved}; go on with: dualview {verb} {store.root} --resume {run.name}"

    return keeping(tell)


def _batches_inside(run: Run) -> int:
    """Batches of an unfinished epoch that its checkpoint has."""
    from recommender import checkpoint

    path = run.folder / "checkpoint" / checkpoint.LAST
    return int(checkpoint.load(path)[1].get("place", 0)) if path.exists() else 0


def evaluate() -> AbstractContextManager[None]:
    return keeping(lambda: f"no figures were kept; {AGAIN} to evaluate")
