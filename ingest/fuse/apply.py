"""Fitted weights of a dual view, applied: an item's stored vectors in, its fused vectors out, numpy on both sides.

The artifact holds the view's shape (config.json) and its weights with the scalings (weights.safetensors), so that it
needs no catalogue: an item that came later is scaled and fused as those before it. What it gives is

    joint    [c~ / |c~| ; f~ / |f~|] / sqrt 2, of width 2 d: a dot product is the mean of both views' cosines
    coarse   c~ / |c~|      fine   f~ / |f~|      aligned   each coarse input's vector behind its adapter, unit length

and without `normalised` [s_c c~ ; s_f f~] and its parts, where s are the scales that a run learned (1 where none did).
An item has values as soon as one of its inputs is there.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn.functional import normalize

from featurestore.errors import BadInput
from ingest.fuse.dual import DualView, Fusion, OneToken, Views
from ingest.fuse.scaling import Scaling, key
from ingest.fuse.stored import Bool, Float32, Stored, Tokens, Vectors

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "weights.safetensors"
SCALE = "scale"


def files_of(
    view: DualView, coarse: Sequence[str], fine: Sequence[str], scale: Tensor | None = None
) -> dict[str, bytes]:
    """The artifact of a fitted view. coarse, fine: as it was made with. scale: (2,), of either view."""
    sources = (*view.coarse.sources, *view.fine.sources)
    widths = {source.name: len(source.scaling.mean) for source in sources}
    config = {
        "format": FORMAT,
        "fusion": asdict(view.fusion),
        "coarse": list(coarse),
        "fine": list(fine),
        "widths": widths,
    }
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in view.state_dict().items()}
    tensors[SCALE] = (torch.ones(2) if scale is None else scale).detach().cpu().float().contiguous()
    return {CONFIG: (json.dumps(config, indent=1, sort_keys=True) + "\n").encode(), WEIGHTS: save(tensors)}


def load_view(folder: Path, device: str = "cpu") -> tuple[DualView, Tensor]:
    """The view of an artifact, over no items, and the scale of its views.

    Raises BadInput for one that another version of dualview wrote, whose weights have another shape.
    """
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if config["format"] > FORMAT:
        raise BadInput("the fit was written by a newer version of dualview", remedy="update dualview")
    weights = load_file(folder / WEIGHTS)
    scale = weights.pop(SCALE)
    nothing: dict[str, Stored] = {
        name: Vectors(np.zeros((0, width), np.float32), np.zeros(0, np.bool_))
        for name, width in config["widths"].items()
    }
    scalings = {
        name: Scaling.kept(weights[f"{place}.mean"], weights[f"{place}.matrix"])
        for name in nothing
        for place in [f"sources.{key(name)}.scaling"]
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OneToken)  # said when it was fitted; of no items it says nothing
        view = DualView(nothing, config["coarse"], config["fine"], Fusion(**config["fusion"]), scalings)
    try:
        view.load_state_dict(weights)
    except RuntimeError as error:
        raise BadInput(
            f"the fit {folder.name[:12]} was made by another version of dualview: its weights have another shape",
            remedy="fit again: dualview fit STORE FEATURE --refit",
        ) from error
    return view.to(device).eval(), scale.to(device)


class Fuser:
    """An encoder of stored vectors. `width` is of a view; `batch_size` items are fused at once."""

    def __init__(
        self, view: DualView, scale: Tensor, *, output: str, normalised: bool = True, batch_size: int = 4096
    ) -> None:
        self.view, self.scale, self.output, self.normalised = view.eval(), scale, output, normalised
        self.batch_size = batch_size

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        output: str,
        normalised: bool = True,
        batch_size: int = 4096,
        device: str = "cpu",
    ) -> Fuser:
        view, scale = load_view(folder, device)
        return cls(view, scale, output=output, normalised=normalised, batch_size=batch_size)

    @torch.no_grad()
    def fuse(self, stored: Mapping[str, Stored]) -> Stored:
        """The output for the n items of `stored`: Vectors, or Tokens for "aligned"; absent where no input is there.

        stored: every input, over the same items. Raises BadInput for one that is missing, of another size, or NaN.
        """
        placed = self.view.placed(stored)
        some = np.logical_or.reduce([each.present for each in stored.values()])
        if self.output == "aligned":
            tokens, there = self.view.aligned(placed=placed)
            return self._tokens(tokens, there)
        return self._vectors(self.view(placed=placed), some)

    def _vectors(self, views: Views, some: Bool) -> Vectors:
        coarse, fine = views.coarse, views.fine
        if self.normalised:
            coarse, fine = normalize(coarse, dim=-1), normalize(fine, dim=-1)
        else:
            coarse, fine = self.scale[0] * coarse, self.scale[1] * fine
        if self.output == "joint":
            found = torch.cat([coarse, fine], dim=-1) / (math.sqrt(2) if self.normalised else 1)
        else:
            found = coarse if self.output == "coarse" else fine
        values: Float32 = found.float().cpu().numpy()
        values[~some] = 0
        return Vectors(values, some)

    def _tokens(self, tokens: Tensor, there: Tensor) -> Tokens:
        if self.normalised:
            tokens = normalize(tokens, dim=-1)
        counts = there.sum(dim=1).cpu().numpy()
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Tokens(tokens[there].float().cpu().numpy(), offsets)
