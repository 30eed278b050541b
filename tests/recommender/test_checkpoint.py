from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from featurestore.errors import BadInput, DiskError, NotFound
from recommender import checkpoint


def test_tensors_and_counters_come_back_exactly(tmp_path: Path) -> None:
    tensors = {"a.b": torch.randn(3, 2).T, "random": torch.get_rng_state(), "one": torch.tensor(3.0)}
    state = {"epoch": 3, "best": 0.1 + 0.2, "rows": [{"loss": 1 / 3}]}
    checkpoint.save(tmp_path / "last.safetensors", tensors, state)
    found, counters = checkpoint.load(tmp_path / "last.safetensors")
    assert counters == state
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


def test_a_write_that_fails_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, {"a": torch.zeros(2)}, {"epoch": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DiskError, match="the disk is full"):
        checkpoint.save(path, {"a": torch.ones(2)}, {"epoch": 2})
    assert checkpoint.load(path)[1] == {"epoch": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.safetensors"]


def test_weights_that_share_memory_are_saved_whole(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    checkpoint.save(tmp_path / "x", {"whole": whole, "part": whole[2:4]}, {})
    found, _ = checkpoint.load(tmp_path / "x")
    assert found["part"].tolist() == [2, 3]


def test_a_file_that_is_missing_cut_short_or_foreign_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no checkpoint"):
        checkpoint.load(tmp_path / "none")
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, {"a": torch.zeros(2000)}, {})
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadInput, match="not a checkpoint of ours"):
        checkpoint.load(path)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(BadInput, match="not a checkpoint of ours"):
        checkpoint.load(path)


def test_an_optimizer_goes_on_as_if_it_had_not_been_away(tmp_path: Path) -> None:
    def steps(weight: nn.Parameter, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()

    first = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = torch.optim.AdamW([first], lr=0.1)
    steps(first, optimizer, 3)
    checkpoint.save(tmp_path / "o", checkpoint.optimizer_tensors(optimizer), {})
    second = nn.Parameter(first.detach().clone())
    later = torch.optim.AdamW([second], lr=0.1)
    checkpoint.restore_optimizer(later, checkpoint.load(tmp_path / "o")[0])
    steps(first, optimizer, 3)
    steps(second, later, 3)
    assert torch.equal(first, second)


def test_names_under_a_prefix_lose_it() -> None:
    one = torch.zeros(1)
    assert checkpoint.under("model", {"model.a": one, "models.b": one, "x.model.c": one}) == {"a": one}
