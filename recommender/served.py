"""What a run serves on a release: a vector for every item it can rank, made once and kept in the run's
folder.

    runs/RUN/served/<key>/  ids.json, inputs.npy, vectors.npy, served.json (written last, with the files'
    sha256)

The key hashes the release's manifest and the run's weights, so nothing here is ever out of date, and all of
it may be deleted. Items of the run's vocabulary keep the vector that training gave them; items that came
later get one from their stored features. A run that knows items by their id only has none for those, nor for items
without a training event, whose id vector was never fitted: they are not read either, are left out, and counted.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from featurestore.errors import BadInput
from featurestore.files import canonical_json, read_json, replacing, sha256_file, sha256_text, write_json
from recommender import backbones, checkpoint, data
from recommender.events import Bool, Int64, Strings
from recommender.items import Stored
from recommender.model import SequentialModel
from recommender.runs import Run

Float32 = npt.NDArray[np.float32]
CODE = 2  # part of the key; raised when what is kept changes


@dataclass(frozen=True, eq=False)
class Served:
    """ids: (m,) sorted, what of the run's vocabulary and of the release's items has a vector.

    inputs: (m, d) float32, what the backbone reads of an item. vectors: (m, d) float32, what a user vector is
    multiplied with. ranked: (m,) bool, the item is in the release and may be recommended. left_out: items of
    the release that this run cannot rank.
    """

    ids: Strings
    inputs: Float32
    vectors: Float32
    ranked: Bool
    left_out: int

    def rows_of(self, ids: Strings) -> Int64:
        """The row of each id, -1 where it has none."""
        if not len(self.ids):
            return np.full(len(ids), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, -1)


class FixedTower(nn.Module):
    """An item tower that has been evaluated: a table of vectors, nothing to learn."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.out_dim = table.shape[1]
        self.register_buffer("table", table)

    table: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        return self.table[rows]

    def all_items(self) -> Tensor:
        return self.table


def serve(run: Run, release: Any) -> tuple[Served, SequentialModel]:
    """What `run` serves on `release`, and its model over exactly those items (row i is `ids[i]`)."""
    folder = run.folder / "served" / key(run, release)
    served = _read(folder)
    if served is None:
        served = _make(run, release)
        _write(folder, served)
    return served, _model(run, served)


def key(run: Run, release: Any) -> str:
    return _key(sha256_file(run.folder / "checkpoint" / checkpoint.BEST), release)


def keys(run: Run, releases: Iterable[Any]) -> set[str]:
    """The keys that a run's folders may have on these releases; none while it has no weights."""
    weights = run.folder / "checkpoint" / checkpoint.BEST
    if not weights.exists():
        return set()
    digest = sha256_file(weights)
    return {_key(digest, release) for release in releases}


def _key(weights: str, release: Any) -> str:
    facts = {"code": CODE, "manifest": release.manifest, "weights": weights}
    return sha256_text(canonical_json(facts))[:24]


@torch.no_grad()
def _make(run: Run, release: Any) -> Served:
    model = run.load_model()
    vocabulary = run.item_ids
    release_ids = np.asarray(release.ids, dtype=np.str_)
    fresh = np.setdiff1d(release_ids, vocabulary)
    table = model.tower.all_items()
    known = vocabulary
    if not run.config.features:
        fitted = np.flatnonzero(run.counts > 0)
        known, table = vocabulary[fitted], table[torch.from_numpy(fitted)]
    elif len(fresh):
        fresh, stored = _described(run, release, fresh)
        table = torch.cat([table, model.tower.embed(stored)])
        known = np.concatenate([vocabulary, fresh])
    order = np.argsort(known)
    ids, table = known[order], table[torch.from_numpy(order)]
    ranked: Bool = np.isin(ids, release_ids)
    model.tower = FixedTower(table)  # type: ignore[assignment]
    return Served(
        ids, table.numpy().copy(), model.item_vectors(), ranked, len(release_ids) - int(ranked.sum())
    )


def _described(run: Run, release: Any, fresh: Strings) -> tuple[Strings, dict[str, Stored]]:
    """Those of `fresh` that have at least one of the run's features, and their stored vectors.

    Raises BadInput where a feature is made by another recipe than the one that the run learnt from: its vectors mean
    something else, whatever their size.
    """
    learnt = run.opened_release()
    for name in run.config.features:
        if release.facts(name)["recipe_id"] != learnt.facts(name)["recipe_id"]:
            raise BadInput(
                f"feature '{name}' of release {release.name} is made by another recipe than in release {learnt.name}, "
                f"which run {run.name} learnt from",
                remedy=f"train again, or ask release {learnt.name}",
            )
    stored = data.features_of(release, run.config, fresh)
    has_any = np.any([vectors.present for vectors in stored.values()], axis=0)
    return fresh[has_any], {n: v.take(has_any) for n, v in stored.items()}


def _model(run: Run, served: Served) -> SequentialModel:
    """The run's backbone over the served items; the stored features are not read again."""
    config = run.config
    backbone = backbones.build(config, served.inputs.shape[1])
    tensors, _ = checkpoint.load(run.folder / "checkpoint" / checkpoint.BEST)
    backbone.load_state_dict(checkpoint.under("model.backbone", tensors))
    tower: Any = FixedTower(torch.from_numpy(served.inputs.copy()))
    temperature = config.temperature if config.cosine else None
    return SequentialModel(tower, backbone, temperature=temperature).eval()


ARRAYS = ("inputs", "vectors", "ranked")


def _write(folder: Path, served: Served) -> None:
    """Keep it, if the folder can be written; a read-only copy of a store serves without."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "ids.json", served.ids.tolist())
        for name in ARRAYS:
            with replacing(folder / f"{name}.npy") as aside, aside.open("wb") as file:
                np.save(file, getattr(served, name), allow_pickle=False)
        files = ["ids.json", *(f"{name}.npy" for name in ARRAYS)]
        hashes = {name: sha256_file(folder / name) for name in files}
        write_json(folder / "served.json", {"left_out": served.left_out, "files": hashes})
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


def _read(folder: Path) -> Served | None:
    """What `_write` kept, or None where there is nothing whole."""
    if not (folder / "served.json").exists():
        return None
    about = read_json(folder / "served.json")
    for name, expected in about["files"].items():
        path = folder / name
        if not path.exists() or sha256_file(path) != expected:
            return None
    arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False, mmap_mode="r") for name in ARRAYS}
    return Served(
        np.array(read_json(folder / "ids.json"), dtype=np.str_), **arrays, left_out=about["left_out"]
    )
