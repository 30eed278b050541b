"""What inside the model was computed before its first step: scalings of stored vectors, and first id vectors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from recommender import model as models
from recommender.audit.base import HOLDS, UNKNOWN, Check, Material, differs, hedged
from recommender.items import Scaling

TOLERANCE = 1e-3  # relative; another machine's eigenvectors differ in the last digits


def checks(given: Material) -> Iterator[Check]:
    if not given.config.features:
        return
    yield from scalings(given)
    begun = given.config.id_init or ("pca" if given.config.tower == "llm-esr" else "normal")
    if begun == "pca" or given.config.tower == "init":
        yield Check(
            "first id vectors",
            UNKNOWN,
            "they were set from stored vectors of the release, no event among them; training has moved them, so the "
            "weights cannot show it",
            {"tower": given.config.tower, "from": list(given.config.features)},
        )


def scalings(given: Material) -> Iterator[Check]:
    """Means, scales and principal directions are made again from the release's vectors, without any event.

    Compared are the mean and the matrix; where that differs, the matrix times its transpose, since from machine to
    machine directions of like variance may be turned and signs flipped, which changes nothing of it.
    """
    with torch.random.fork_rng(devices=[]):
        fresh = models.build(given.config, given.run.counts, given.vectors)
    made = [(name, part) for name, part in fresh.named_modules() if isinstance(part, Scaling)]
    for name, part in made:
        kept = {key: given.weights.get(f"{name}.{key}") for key in ("mean", "matrix")}
        apart = _apart(part, kept["mean"], kept["matrix"])
        same = apart is not None and max(apart.values()) <= TOLERANCE
        evidence = {
            "weights": name,
            "scaling": given.config.scaling,
            "directions": part.out_dim,
            "relative_difference": apart,
            "tolerance": TOLERANCE,
        }
        because = (
            "made again from the release's vectors of its items, each counted once, it is the same: no event is in it"
            if same
            else "made again from the release's vectors it is another one"
        )
        yield Check(
            f"scaling {name.removeprefix('tower.').removesuffix('.scaling')}",
            HOLDS if same else differs(given.forgotten),
            because if same else hedged(because, given.forgotten),
            evidence,
        )


def _apart(made: Scaling, mean: Tensor | None, matrix: Tensor | None) -> dict[str, float] | None:
    """Relative differences of mean and of matrix times transpose; None where these are no weights of that form."""
    if mean is None or matrix is None or mean.shape != made.mean.shape:
        return None
    if len(matrix) != len(made.matrix):
        return None
    now, then = made.matrix.double(), matrix.double()
    if now.shape != then.shape or float((now - then).norm() / now.norm()) > TOLERANCE:
        now, then = now @ now.T, then @ then.T
    # a mean may be next to nothing: it is measured against the spread of the vectors, which the matrix undoes
    shift = ((mean - made.mean).double() @ made.matrix.double()).norm()
    size = (made.mean.double() @ made.matrix.double()).norm().clamp_min(1.0)
    return {"mean": float(shift / size), "matrix": float((now - then).norm() / now.norm().clamp_min(1e-30))}
