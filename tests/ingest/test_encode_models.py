from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from featurestore.errors import BadInput, ModelUnavailable
from featurestore.recipe import ModelRef
from ingest.encode import base
from ingest.encode.models import OPEN_CLIP, TIMM, TRANSFORMERS, Models


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub is where nothing answers, and its cache is empty."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def folder(path: Path, content: str = "weights") -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_text(content)
    return path


def test_a_folder_is_known_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    models = Models(tmp_path)
    here = models.find(str(folder(tmp_path / "a" / "mini")), TRANSFORMERS)
    there = models.find(str(folder(tmp_path / "b" / "mini")), TRANSFORMERS)
    other = models.find(str(folder(tmp_path / "c" / "mini", "others")), TRANSFORMERS)
    assert here.ref == there.ref
    assert here.ref != other.ref


def test_a_relative_folder_starts_at_the_store(tmp_path: Path) -> None:
    folder(tmp_path / "models" / "mini")
    for spec in ("models/mini", "./models/mini", "local-dir:models/mini"):
        assert Models(tmp_path).find(spec, TRANSFORMERS).folder == tmp_path / "models" / "mini"


def test_a_folder_is_read_again_only_when_its_files_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, models = folder(tmp_path / "mini"), Models(tmp_path)
    ref = models.find(str(place), TRANSFORMERS).ref
    monkeypatch.setattr("ingest.encode.models.sha256_folder", lambda _: pytest.fail("read the folder again"))
    assert models.unchanged(str(place), ref)
    monkeypatch.undo()
    (place / "model.safetensors").write_text("retrained")
    assert not models.unchanged(str(place), ref)


def test_a_folder_that_is_gone_leaves_what_was_computed_valid_but_cannot_be_opened(tmp_path: Path) -> None:
    place, models = folder(tmp_path / "mini"), Models(tmp_path)
    ref = models.find(str(place), TRANSFORMERS).ref
    place.rename(tmp_path / "elsewhere")
    assert models.unchanged(str(place), ref)
    with pytest.raises(ModelUnavailable, match="is gone or holds other weights"):
        models.open(ref, TRANSFORMERS, str(place))
    assert models.open(ref, TRANSFORMERS, str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"


def test_a_folder_seen_earlier_is_found_after_the_definition_names_another(tmp_path: Path) -> None:
    old, new = folder(tmp_path / "old"), folder(tmp_path / "new", "others")
    models = Models(tmp_path)
    ref = models.find(str(old), TRANSFORMERS).ref
    models.find(str(new), TRANSFORMERS)
    assert models.open(ref, TRANSFORMERS, str(new)) == old


@pytest.mark.parametrize("spec", ["./nowhere", "/no/such/folder", "local-dir:nowhere"])
def test_a_folder_that_is_not_there_is_refused(spec: str, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="is not there"):
        Models(tmp_path).find(spec, TRANSFORMERS)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    place = folder(tmp_path / "mini")
    (place / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match="holds no weights"):
        Models(tmp_path).find(str(place), TRANSFORMERS)


def test_a_folder_that_lacks_a_part_of_its_weights_is_refused(tmp_path: Path) -> None:
    place = folder(tmp_path / "mini")
    (place / "model.safetensors").rename(place / "model-1-of-2.safetensors")
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    assert not TRANSFORMERS.complete(place)
    (place / "model-2-of-2.safetensors").write_text("rest")
    assert TRANSFORMERS.complete(place)


def test_a_hub_that_does_not_answer_is_an_error_that_names_the_folder_option(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        Models(tmp_path).find("some/model", TRANSFORMERS)
    assert "'some/model'" in caught.value.message
    assert "not in the hub's cache" in caught.value.message
    assert 'model = "path/to/FOLDER"' in str(caught.value.remedy)


def test_a_model_in_the_hubs_cache_is_used_without_the_hub_and_pinned_to_its_commit(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub" / "models--some--model"
    snapshot = folder(cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    models = Models(tmp_path)
    found = models.find("some/model", TRANSFORMERS)
    assert found.ref == ModelRef(id="some/model", revision=commit)
    assert found.folder == snapshot
    assert models.open(found.ref, TRANSFORMERS) == snapshot
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match="at revision 0123456789ab"):
        models.open(found.ref, TRANSFORMERS)


def test_of_a_repository_only_what_is_needed_is_fetched_and_safetensors_come_first() -> None:
    files = [
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "README.md",
        "onnx/model.onnx",
        "openvino/config.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/pytorch_model.bin",
        "tokenizer.json",
        "modeling_custom.py",
    ]
    assert TRANSFORMERS.pick(files) == [
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/pytorch_model.bin",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert TRANSFORMERS.pick(["config.json", "model.gguf"]) == []
    both = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors"]
    assert OPEN_CLIP.pick(both) == ["open_clip_model.safetensors"]
    assert TIMM.pick(["pytorch_model.bin", "config.json"]) == ["config.json", "pytorch_model.bin"]


def test_a_store_that_cannot_be_written_still_knows_its_models(tmp_path: Path) -> None:
    place = folder(tmp_path / "mini")
    (tmp_path / "cache").write_text("in the way of a folder")
    assert Models(tmp_path).find(str(place), TRANSFORMERS).ref.folder_sha256


def test_a_cache_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    place, models = folder(tmp_path / "mini"), Models(tmp_path)
    ref = models.find(str(place), TRANSFORMERS).ref
    (tmp_path / "cache" / "models.json").write_text("{half")
    os.utime(place / "config.json")
    assert models.unchanged(str(place), ref)


def test_an_unknown_encoder_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadInput) as caught:
        base.maker("embed_image", "tim")
    assert caught.value.remedy == "did you mean 'timm'?"
    with pytest.raises(BadInput, match="'sentence' does not do embed_image"):
        base.maker("embed_image", "sentence")


def test_an_unknown_or_mistyped_option_is_refused_with_its_place() -> None:
    maker = base.maker("embed_text", "tfidf_svd")
    with pytest.raises(BadInput, match=r"\[features.title\].*no option 'dims'") as caught:
        base.check_options("title", maker, {"dims": 3})
    assert caught.value.remedy == "did you mean 'dim'?"
    with pytest.raises(BadInput, match=r"\[features.title\]: option dim = '3'"):
        base.check_options("title", maker, {"dim": "3"})


def test_a_full_memory_halves_the_batch_and_other_errors_pass() -> None:
    import numpy as np
    import torch

    seen: list[int] = []

    def encode(rows: object, batch: int) -> np.ndarray:
        seen.append(batch)
        if batch > 4:
            raise torch.OutOfMemoryError("out of memory")
        return np.zeros((1, 1), np.float32)

    size = base.BatchSize(16)
    size.run(encode, [1])
    assert (seen, size.size) == ([16, 8, 4], 4)
    with pytest.raises(RuntimeError, match="shapes"):
        size.run(lambda rows, batch: (_ for _ in ()).throw(RuntimeError("shapes differ")), [1])


def test_a_device_that_is_not_there_is_refused() -> None:
    assert base.pick_device("cpu") == "cpu"
    with pytest.raises(BadInput, match="unknown device"):
        base.pick_device("gpu")
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(BadInput, match="is not there"):
            base.pick_device("cuda")
