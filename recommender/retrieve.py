"""The one way to an answer: items like an item, and the next items for a user.

`similar` compares stored vectors and needs no run. `recommend` reads a user's events with a run's model and
looks up the item vectors that the run serves on the release (`recommender.served`). Ids in, ids out; among
equal scores the smaller id comes first. Everything is opened when it is first needed and then kept, so a
Retriever is worth keeping.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from featurestore import spelling
from featurestore.errors import BadInput, NotFound
from featurestore.query import GREATEST_K
from featurestore.schema import ITEM_ID
from recommender.events import EventLog, Int64, Strings
from recommender.runs import Run, open_run, promoted

if TYPE_CHECKING:
    from featurestore.index import Index
    from recommender.model import SequentialModel
    from recommender.msr.rerank import Rerankers
    from recommender.served import Served

METADATA = b"dualview.answer"
DEPTH = 50  # candidates that are re-ranked, where nobody says how many


@dataclass(frozen=True)
class Ready:
    """A run, opened on a release, and an index over the items that it ranks there, in the order of their
    ids."""

    run: Run
    served: Served
    model: SequentialModel
    index: Index
    index_rows: Int64  # row of `served` of each row of the index
    release_rows: Int64  # row of the release of each row of the index

    def places(self, rows: Int64) -> Int64:
        """Rows of the index for rows of `served`, each once; those that it does not rank are left out."""
        wanted = np.unique(rows)
        at = np.minimum(np.searchsorted(self.index_rows, wanted), max(len(self.index_rows) - 1, 0))
        return at[self.index_rows[at] == wanted] if len(self.index_rows) else at[:0]


class Retriever:
    """Answers on one release, with one run where users are concerned."""

    def __init__(self, root: str | Path, release: Any, run: str | None = None) -> None:
        self.root, self.release = Path(root), release
        self._asked_run = run

    @classmethod
    def open(cls, store: Any, run: str | None = None, release: str = "latest") -> Retriever:
        """Open a store, or a copied folder that holds releases and runs only.

        store: a Store, or the path of one. run: name of a run, or "latest"; by default the promoted run, and
        where none was promoted, the latest. release: name of a release, or "latest".
        """
        from featurestore import release as releases

        root = Path(store) if isinstance(store, str | Path) else Path(store.root)
        return cls(root, releases.open(root, release), run)

    def similar(
        self,
        item: str | None = None,
        *,
        vector: Any = None,
        feature: str | None = None,
        where: str | None = None,
        k: int = 10,
    ) -> pa.Table:
        """The k items nearest to an item, which is never among them, or to a vector: item_id, score, the
        catalogue's columns.

        feature: whose vectors to compare. where: only items for which this holds, e.g. "price < 20".
        """
        from featurestore.search import similar

        return similar(self.release, item=item, vector=vector, feature=feature, where=where, k=k)

    def recommend(
        self,
        user: str | None = None,
        *,
        history: list[str] | None = None,
        k: int = 10,
        where: str | None = None,
        exclude_seen: bool = True,
        rerank: str | None = None,
        depth: int | None = None,
        device: str = "auto",
    ) -> pa.Table:
        """The k next items for a user of the log, or for a history of item ids given here, oldest first.

        exclude_seen: never an item that the user had. where: only items for which this holds. rerank: a fine-tuned run
        ("msr": the newest) that puts the first `depth` candidates (50, and at least k) into its own order; device: its.
        Returns item_id, score and the catalogue's columns, best first; fewer than k where fewer are allowed. Re-ranked,
        `p_yes` stands before `score`, which is the retriever's. What was left out, and who re-ranked by what, stands
        in the table's metadata, which `facts(table)` reads.

        Raises NotFound for an unknown user or item id, or a preference that is not there, BadInput where the run can
        read nothing of the history.
        """
        if (user is None) == (history is None):
            raise BadInput("recommend takes a user or a history, one of the two")
        taken = _candidates(k, rerank, depth)
        reranker = None if rerank is None else self.rerankers.get(rerank, device)
        ready = self._ready
        ids = self._taken_by(user) if user is not None else self._known(history or [])
        rows = ready.served.rows_of(ids)
        readable = rows[rows >= 0]
        if not len(readable):
            who = f"user '{user}'" if user is not None else "this history"
            raise BadInput(
                f"run {ready.run.name} can read none of the {len(ids)} events of {who}",
                remedy="train again on this release, or train with features, which new items have too",
            )
        asking = ready.model.user_vectors(readable, np.array([0]), np.array([len(readable)]))
        seen = ready.places(readable) if exclude_seen else np.zeros(0, dtype=np.int64)
        allowed = None if where is None else self.release.mask(where)[ready.release_rows]
        scores, found = ready.index.search(
            asking, taken, allowed=allowed, exclude=[seen] if exclude_seen else None
        )
        keep = found[0] >= 0
        table = self._table(ready.release_rows[found[0][keep]], scores[0][keep])
        facts = {
            "run": ready.run.name,
            "release": self.release.name,
            "events": len(ids),
            "events_unreadable": int(len(ids) - len(readable)),
            "items_ranked": len(ready.index_rows),
            "items_left_out": ready.served.left_out,
            "items_passing_filter": None if allowed is None else int(allowed.sum()),
            "items_seen_excluded": len(seen),
        }
        if reranker is not None:
            new = reranker.rank(user, ids, table[ITEM_ID].to_pylist())
            p_yes = pa.array(new.p_yes[new.order[:k]], pa.float64())
            table = table.take(pa.array(new.order[:k])).add_column(1, "p_yes", p_yes)
            facts["rerank"] = reranker.facts(new)
        return table.replace_schema_metadata({METADATA: json.dumps(facts)})

    @cached_property
    def rerankers(self) -> Rerankers:
        """The fine-tuned runs that put candidates into their order."""
        from recommender.msr.rerank import Rerankers

        return Rerankers(self.root, self.release)

    @property
    def run(self) -> Run:
        """The run that `recommend` uses."""
        return self._ready.run

    @property
    def served(self) -> Served:
        """The vectors that the run serves on the release."""
        return self._ready.served

    @cached_property
    def log(self) -> EventLog:
        """All events of the release, those of removed items too."""
        return EventLog.from_table(self.release.events())

    @cached_property
    def _ready(self) -> Ready:
        from featurestore import index
        from recommender.served import serve

        if self._asked_run is None:
            run = promoted(self.root) or open_run(self.root, "latest")
        else:
            run = open_run(self.root, self._asked_run)
        served, model = serve(run, self.release)
        index_rows = np.flatnonzero(served.ranked)
        return Ready(
            run=run,
            served=served,
            model=model,
            index=index.build(served.vectors[index_rows], metric="ip"),
            index_rows=index_rows,
            release_rows=np.searchsorted(self._ids, served.ids[index_rows]),
        )

    @cached_property
    def _ids(self) -> Strings:
        return np.asarray(self.release.ids, dtype=np.str_)

    def _taken_by(self, user: str) -> Strings:
        """Item ids of a user's events, oldest first."""
        return self.log.item_ids[self.log.items[self.log.events_of(user)]]

    def _known(self, history: list[str]) -> Strings:
        """`history` as ids, each of which the release or the run has heard of."""
        for item in dict.fromkeys(history):
            if spelling.place(self._ids, item) < 0 and spelling.place(self._ready.served.ids, item) < 0:
                raise NotFound(
                    f"no item '{item}' in release {self.release.name}", remedy=spelling.hint(self._ids, item)
                )
        return np.array(history, dtype=np.str_)

    def _table(self, rows: Int64, scores: Any) -> pa.Table:
        picked = self.release.catalogue.take(pa.array(rows, pa.int64()))
        columns = {ITEM_ID: picked[ITEM_ID], "score": pa.array(scores, pa.float32())}
        rest = [name for name in picked.column_names if name not in columns and not name.startswith("_")]
        return pa.table(columns | {name: picked[name] for name in rest})


def _candidates(k: int, rerank: str | None, depth: int | None) -> int:
    """How many are looked for: of a re-ranked answer more than the k that are given. Raises BadInput."""
    if not 1 <= k <= GREATEST_K:
        raise BadInput(f"k is {k}; it must be from 1 to {GREATEST_K:,}", remedy="give a k in that range")
    if rerank is None and depth is not None:
        raise BadInput(
            "depth is how many candidates are re-ranked", remedy="name a run to re-rank by, or msr"
        )
    if depth is not None and depth < 1:
        raise BadInput(f"depth is {depth}; at least 1 candidate is re-ranked", remedy="leave it out for 50")
    taken = k if rerank is None else max(k, DEPTH if depth is None else depth)
    if taken > GREATEST_K:
        raise BadInput(f"depth is {taken}; it may be {GREATEST_K:,} at most", remedy="give a smaller one")
    return taken


def facts(answer: pa.Table) -> dict[str, Any]:
    """How an answer of `recommend` came about: run, release, and what was left out."""
    result: dict[str, Any] = json.loads((answer.schema.metadata or {}).get(METADATA, b"{}"))
    return result
