"""Training from a store: a release and options in, a named run out."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from featurestore.errors import BadInput

if TYPE_CHECKING:
    from featurestore.store import Store
    from recommender.runs import Run

TOLD_APART = ("backbone", "items")  # options with a flag of their own


def fit(
    store: Store,
    *,
    backbone: str | None = None,
    items: str | None = None,
    release: str = "latest",
    resume: str | None = None,
    device: str = "auto",
    progress: Callable[[dict[str, Any]], None] | None = None,
    **options: Any,
) -> Run:
    """Train a sequential recommender on a release; returns the run, under `STORE/runs/NAME`.

    backbone: "sasrec". items: "id", a feature's name, or several joined by +. options: fields of
    `recommender.config.Config`. resume: name of a run that was stopped; it goes on with its own options and
    release (epochs and patience may be given anew). progress: called with one row an epoch.

    Raises BadInput for an unknown option or feature, NotFound for an unknown release or run.
    """
    from recommender import fit as trainer
    from recommender.config import Config
    from recommender.runs import allot, open_run

    given = {k: v for k, v in {"backbone": backbone, "items": items}.items() if v is not None} | options
    if resume is not None:
        run = open_run(store.root, resume)
        config = Config.of(**(run.config.model_dump() | given))
        source = store.release(run.release or release)
        return trainer.fit(source, config, run.folder, device=device, progress=progress)
    config = Config.of(**given)
    source = store.release(release)
    for feature in config.features:
        source.matrix(feature)  # an unknown feature is refused before a run is named
    folder = allot(store.root, config.slug)
    try:
        return trainer.fit(source, config, folder, device=device, progress=progress)
    except BaseException:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only where it is empty: what was refused before it began takes no name
        raise


def promote(store: Store, run: str) -> Run:
    """Make a run the one that `recommend` uses."""
    from recommender import runs

    return runs.promote(store.root, run)


def parse_options(given: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts as options; values are written as in TOML, bare words are strings.

    >>> parse_options(["width=128", "loss=bce", "k_core=[6, 5]"])
    {'width': 128, 'loss': 'bce', 'k_core': [6, 5]}
    """
    options: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise BadInput(
                f"'{text}' is no option", remedy="write --set KEY=VALUE; `--options` lists the keys"
            )
        try:
            options[key.strip()] = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            options[key.strip()] = value.strip()
    return options


def option_table() -> list[tuple[str, str, str]]:
    """(option, default, meaning) of everything that can be set."""
    from recommender.config import Config

    return [
        (name, str(field.default), field.description or "")
        for name, field in Config.model_fields.items()
        if name not in TOLD_APART
    ]


def run_rows(store: Store) -> list[dict[str, Any]]:
    """One row a run, newest first, for a list."""
    from recommender import runs

    chosen = runs.promoted(store.root)
    rows = []
    for run in runs.list_runs(store.root):
        found = run.metrics()
        test = found.get("test", {}).get("metrics", {})
        rows.append(
            {
                "run": run.name,
                "release": run.release,
                "epochs": found.get("epochs", 0),
                "best": found.get("best_epoch"),
                "valid NDCG@10": found.get("valid", {}).get("ndcg@10"),
                "test NDCG@10": test.get("NDCG@10"),
                "test HR@10": test.get("HR@10"),
                "promoted": chosen is not None and chosen.name == run.name,
            }
        )
    return rows
