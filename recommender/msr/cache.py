"""Keys and values of what prompts have in common, computed once and read by all of them.

What is shared is found in the tokens themselves, so that no text is tokenized in pieces. It ends before the first
picture: pictures differ although their tokens do not, and some models let a picture's tokens see each other both ways.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from recommender.msr.prompt import Batch


def shared_tokens(rows: Sequence[Mapping[str, Tensor]], pictures: Collection[int]) -> int:
    """How many tokens all prompts begin with, none of them a picture's; at least one token is left to each."""
    ids = [row["input_ids"][0] for row in rows]
    most = min(len(each) for each in ids) - 1
    first = ids[0][:most]
    same = torch.ones(most, dtype=torch.bool)
    for each in ids[1:]:
        same &= each[:most] == first
    for token in pictures:
        same &= first != token
    return int(same.long().cumprod(0).sum())


def widened(cache: Any, rows: int, device: torch.device) -> Any:
    """The cache of one prompt's beginning as that of `rows` prompts; the one given is not changed by what is added."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    found = copy.copy(cache)
    found.layers = []
    for layer in cache.layers:
        if type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) and layer.is_initialized:
            mine = copy.copy(layer)  # growing makes new tensors, so the views below are only ever read
            mine.keys = layer.keys.expand(rows, *layer.keys.shape[1:])
            mine.values = layer.values.expand(rows, *layer.values.shape[1:])
        else:
            mine = copy.deepcopy(layer)
            mine.reorder_cache(torch.zeros(rows, dtype=torch.long, device=device))
        found.layers.append(mine)
    return found


WHOLE = ("attention_mask", "token_type_ids")  # what is read by places counted from the beginning
PICTURES = ("pixel_values", "image_")  # how names of what is not of tokens begin, whatever its shape


def after(batch: Batch, start: int, place: torch.device) -> dict[str, Any]:
    """What a model takes of a batch whose first `start` tokens are in its cache; masks cover those too."""
    width = batch.inputs["input_ids"].shape[1]
    cut = {}
    for name, value in batch.inputs.items():
        whole = name in WHOLE or name.startswith(PICTURES) or value.dim() != 2 or value.shape[1] != width
        cut[name] = (value if whole else value[:, start:]).to(place)
    return cut


def positions(model: Any, batch: Batch, start: int, place: torch.device) -> Tensor | None:
    """(3, n, L - start) places of the tokens in time, height and width, for models that have such; else None, and the
    model counts by itself, which is right for prompts that are padded on the right.

    Given where a model would otherwise go on from what it last saw.
    """
    index = next((m.get_rope_index for m in model.modules() if hasattr(m, "get_rope_index")), None)
    if index is None:
        return None
    inputs = batch.inputs
    if "image_grid_thw" not in inputs:
        n, width = inputs["input_ids"].shape
        return torch.arange(start, width, device=place).expand(3, n, -1)
    taken = {
        name: inputs[name].to(place)
        for name in ("input_ids", "image_grid_thw", "attention_mask", "mm_token_type_ids")
        if name in inputs
    }
    found: Tensor = index(**taken)[0]
    return found[..., start:]
