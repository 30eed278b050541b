"""Where training stands, as one file that is whole or not there: tensors in safetensors, counters as JSON in
its header.

One file and not two, so that weights, optimizer, random state and counters can never be of different epochs.
Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from featurestore.errors import BadInput, NotFound
from featurestore.files import replacing

LAST, BEST = "last.safetensors", "best.safetensors"
STATE = "state"  # the header's key


def save(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write atomically. `state`: anything JSON can hold; floats come back exactly."""
    kept = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    with replacing(path) as aside:
        save_file(kept, aside, metadata={STATE: json.dumps(state, allow_nan=False)})


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save` wrote, on the CPU."""
    if not path.exists():
        raise NotFound(
            f"there is no checkpoint {path}", remedy="train the run first, or finish it with --resume"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            state: dict[str, Any] = json.loads((file.metadata() or {})[STATE])
    except (SafetensorError, KeyError, ValueError) as error:
        raise BadInput(
            f"{path} is not a checkpoint of ours: {error}", remedy="train the run again"
        ) from error
    return tensors, state


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix.`, without it."""
    return {
        name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")
    }


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors named `PARAMETER.KEY`.

    Learning rates are the schedule's, not kept here.
    """
    return {
        f"{place}.{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for place, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        place, key = name.split(".", 1)
        state.setdefault(int(place), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
