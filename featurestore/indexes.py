"""Which index a feature's vectors get, what is kept of it in a release, and how it is opened.

Up to EXACT_UP_TO vectors an exact flat index (`featurestore.index`); above, an approximate one (`featurestore.ann`),
tuned to the recall that was asked for (`featurestore.tuning`). A feature may ask for either in features.toml.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore import ann, index, tuning
from featurestore.ann import Setting
from featurestore.errors import BadInput
from featurestore.exact import Float32, Index
from featurestore.schema import ValueKind

if TYPE_CHECKING:
    from featurestore.definitions import IndexKind
    from featurestore.recipe import Recipe
    from featurestore.tables import Tables

EXACT_UP_TO = 100_000  # vectors: one query over them takes some milliseconds
FEWEST = 1_000  # vectors that an approximate index can be fitted to
SHORTEST = 1e-18  # length of a vector below which float32 products of it lose digits: answered exactly only
RECALL = 0.99
FILE, LENGTHS = "index.faiss", "lengths.npy"


@dataclass(frozen=True)
class Wanted:
    """What was asked for: a kind, and the recall@10 that an approximate index must reach."""

    kind: IndexKind = "auto"
    recall: float = RECALL

    def check(self) -> None:
        """Raises BadInput for a recall that none can have."""
        if not 0 < self.recall <= 1:
            raise BadInput(
                f"a recall of {self.recall} was asked for",
                remedy="give a share above 0, up to 1, such as 0.99",
            )

    def approximate(self, rows: int) -> bool:
        """Whether so many vectors get an approximate index."""
        return rows >= FEWEST and (self.kind == "ivf" or (self.kind == "auto" and rows > EXACT_UP_TO))

    def identity(self, rows: int, dim: int) -> list[Any]:
        """What decides the index of given vectors: two that are the same here are the same index."""
        if not self.approximate(rows):
            return ["flat", "cosine"]
        built = [ann.factory(rows, dim), ann.SEED, ann.TRAINED_ON]
        tuned = [self.recall, tuning.K, tuning.QUERIES, tuning.REPORTS, tuning.SEED, list(tuning.SHORTLISTS)]
        return ["ivf", "cosine", *built, *tuned, tuning.FIRST_NPROBE, tuning.ROW_COST, tuning.SPARE]


def identities(
    tables: Tables, versions: dict[str, int], recipes: dict[str, Recipe | None], wanted: dict[str, Wanted]
) -> list[list[Any]]:
    """What decides the approximate indexes of a release, judged by the rows of the features' tables; often nothing."""
    found = []
    for name, recipe in recipes.items():
        if recipe is None or recipe.value != ValueKind.VECTOR or recipe.table(name) not in versions:
            continue
        rows = tables.count(recipe.table(name), versions[recipe.table(name)])
        if wanted[name].approximate(rows):
            found.append([name, *wanted[name].identity(rows, recipe.dim or 0)])
    return found


def build(folder: Path, vectors: Float32, wanted: Wanted, feature: str) -> dict[str, Any]:
    """Write a feature's index into `folder`; returns what the manifest says of it.

    vectors: (n, dim) float32, which the release keeps: an approximate index does not hold them again.
    Raises Stale where the recall is not reached, BadInput for vectors that are not finite or zero.
    """
    if not wanted.approximate(len(vectors)):
        return _exact(folder, vectors)
    made = ann.build(vectors, Setting(1, tuning.K))
    assert made.lengths is not None
    if made.lengths.min() < SHORTEST:
        return _exact(folder, vectors)
    tuned = tuning.tune(made, wanted.recall, feature)
    np.save(folder / LENGTHS, made.lengths, allow_pickle=False)
    facts = made.with_setting(tuned.setting).write(folder / FILE)
    facts.pop("sha256")  # the manifest has it of every file
    return (
        facts
        | asdict(tuned.setting)
        | {
            "kind": "ivf",
            "exact": False,
            "factory": ann.factory(len(vectors), made.dim),
            "nlist": int(made.ivf.nlist),
            "target": wanted.recall,
            "recall": tuned.recall,
            "k": tuning.K,
            "queries": {"tuning": tuned.tuned_on, "report": tuned.queries},
            "seed": tuning.SEED,
        }
    )


def _exact(folder: Path, vectors: Float32) -> dict[str, Any]:
    facts = index.build(vectors, "cosine").write(folder / FILE)
    facts.pop("sha256")
    return facts | {"kind": "exact", "exact": True, "factory": "Flat"}


def open(facts: dict[str, Any], sha256: str, path: Callable[[str], Path]) -> Index:
    """The index that `build` returned `facts` of. path: of "index", "lengths" and "values", the release's matrix.

    Raises NotFound and Conflict for files that are gone or not as they were written.
    """
    expected = facts | {"sha256": sha256}
    if facts.get("kind", "exact") == "exact":  # earlier releases do not say
        return index.read(path("index"), expected)
    values, lengths = (
        np.asarray(np.load(path(name), mmap_mode="r", allow_pickle=False)) for name in ("values", "lengths")
    )
    setting = Setting(facts["nprobe"], facts["shortlist"])
    return ann.read(path("index"), expected, values, lengths, setting)
