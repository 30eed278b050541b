from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featurestore.artifacts import Artifacts
from featurestore.errors import BadInput, ModelUnavailable
from featurestore.recipe import Recipe
from ingest.encode import base, sentence
from ingest.encode.models import Models
from tests.ingest import tiny_models

Load = Callable[..., tuple[Any, Recipe]]
TEXTS = ["red shoe", "a tall mug with the cup", "blue", "green boot for a query of mug", "wide cup"] * 3


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """(encoder, recipe) of a definition."""

    def make(
        kind: str, name: str, model: Path | str | None, batch_size: int | None = None, **options: Any
    ) -> Any:
        maker = base.maker(kind, name)
        models = Models(tmp_path)
        spec = None if model is None else str(model)
        resolved = maker.resolve(base.check_options("f", maker, options), spec, models, "cpu")
        recipe = Recipe(
            kind=kind,
            inputs=("image",),
            encoder=name,
            model=resolved.model,
            options=resolved.options,
            dim=resolved.dim,
            code_version=maker.code_version,
        )
        return maker.load(recipe, base.Tools(models, Artifacts(tmp_path), "cpu", batch_size, spec)), recipe

    return make


# ---- sentence


def test_vectors_are_those_of_the_library(load: Load) -> None:
    from sentence_transformers import SentenceTransformer

    encoder, recipe = load("embed_text", "sentence", tiny_models.sentence(), batch_size=2)
    bare = SentenceTransformer(str(tiny_models.sentence()), device="cpu").encode(
        TEXTS, normalize_embeddings=True
    )
    np.testing.assert_allclose(encoder.encode(TEXTS), bare, atol=1e-5)
    assert recipe.dim == encoder.dim == 32
    assert recipe.model is not None
    assert recipe.model.folder_sha256


def test_prompts_come_from_the_models_config_and_stand_in_the_recipe(load: Load) -> None:
    model = tiny_models.sentence("sentence-prompts", prompts=True)
    encoder, recipe = load("embed_text", "sentence", model)
    assert (recipe.options["prompt_document"], recipe.options["prompt_query"]) == ("passage: ", "query: ")
    plain, _ = load("embed_text", "sentence", tiny_models.sentence())
    np.testing.assert_allclose(encoder.encode(["red shoe"]), plain.encode(["passage: red shoe"]), atol=1e-5)
    np.testing.assert_allclose(encoder.encode(["mug"], role="query"), plain.encode(["query: mug"]), atol=1e-5)


def test_prompts_of_the_options_win_over_the_models(load: Load) -> None:
    model = tiny_models.sentence("sentence-prompts", prompts=True)
    encoder, _ = load("embed_text", "sentence", model, prompt_document="", prompt_query="a ")
    plain, _ = load("embed_text", "sentence", tiny_models.sentence())
    np.testing.assert_allclose(encoder.encode(["red shoe"]), plain.encode(["red shoe"]), atol=1e-5)
    np.testing.assert_allclose(encoder.encode(["mug"], role="query"), plain.encode(["a mug"]), atol=1e-5)


def test_a_text_is_cut_at_max_length_which_the_model_bounds(load: Load) -> None:
    long = "red " * 40
    encoder, recipe = load("embed_text", "sentence", tiny_models.sentence(), max_length=5)
    np.testing.assert_allclose(encoder.encode([long]), encoder.encode(["red red red"]), atol=1e-5)
    whole, other = load("embed_text", "sentence", tiny_models.sentence())
    assert np.abs(whole.encode([long]) - encoder.encode([long])).max() > 1e-3
    assert recipe.id != other.id
    with pytest.raises(BadInput, match="at most 64 tokens"):
        load("embed_text", "sentence", tiny_models.sentence(), max_length=65)


def test_vectors_keep_their_length_where_normalisation_is_off(load: Load) -> None:
    encoder, _ = load("embed_text", "sentence", tiny_models.sentence(), normalize=False)
    assert np.abs(np.linalg.norm(encoder.encode(TEXTS), axis=1) - 1).min() > 0.1


def test_a_model_that_lacks_weights_is_refused_and_not_filled_with_random_ones(
    load: Load, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(tiny_models.sentence(), broken)
    weights = load_file(broken / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "layer.1" not in k},
        broken / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(ModelUnavailable, match="lacks a part of its weights"):
        load("embed_text", "sentence", broken)


def test_a_folder_of_another_kind_is_refused(load: Load) -> None:
    with pytest.raises(ModelUnavailable, match="holds no weights"):
        load("embed_text", "sentence", tiny_models.open_clip())
    with pytest.raises(ModelUnavailable, match="does not load"):
        load("embed_text", "sentence", tiny_models.timm())
    with pytest.raises(ModelUnavailable, match="does not load"):
        load("embed_image", "timm", tiny_models.sentence())
    with pytest.raises(ModelUnavailable, match=r"no open_clip_config\.json"):
        load("embed_image", "open_clip", tiny_models.timm())


def test_code_that_comes_with_a_model_is_not_run(load: Load, tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    shutil.copytree(tiny_models.sentence(), evil)
    config = json.loads((evil / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (evil / "config.json").write_text(json.dumps(config))
    (evil / "evil.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\nclass Model: ...\n"
    )
    with pytest.raises(ModelUnavailable):
        load("embed_text", "sentence", evil)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_that_runs_code_is_refused(load: Load, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    for kind, name, source, file in (
        ("embed_text", "sentence", tiny_models.sentence(), "pytorch_model.bin"),
        ("embed_image", "open_clip", tiny_models.open_clip(), "open_clip_pytorch_model.bin"),
        ("embed_image", "timm", tiny_models.timm(), "pytorch_model.bin"),
    ):
        model = tmp_path / name
        shutil.copytree(source, model, ignore=shutil.ignore_patterns("*.safetensors"))
        torch.save({"state_dict": Evil()}, model / file)
        with pytest.raises(ModelUnavailable):
            load(kind, name, model)
    assert not (tmp_path / "ran").exists()


def test_a_model_is_needed(load: Load) -> None:
    for kind, name in (("embed_text", "sentence"), ("embed_image", "open_clip"), ("embed_image", "timm")):
        with pytest.raises(BadInput, match="needs a model"):
            load(kind, name, None)


# ---- open_clip


def test_clips_image_and_text_towers_share_a_space_and_agree_with_the_library(load: Load) -> None:
    import open_clip

    images, recipe = load("embed_image", "open_clip", tiny_models.open_clip(), batch_size=2)
    texts, _ = load("embed_text", "open_clip", tiny_models.open_clip())
    pictures = [tiny_models.picture(c) for c in ("red", "blue", "green")]
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tiny_models.open_clip()}")
    tokens = open_clip.get_tokenizer(f"local-dir:{tiny_models.open_clip()}")(["red shoe", "mug"])
    with torch.inference_mode():
        by_image = (
            model.eval().encode_image(torch.stack([transform(p) for p in pictures]), normalize=True).numpy()
        )
        by_text = model.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(images.encode([images.prepare(p) for p in pictures]), by_image, atol=1e-5)
    np.testing.assert_allclose(images.encode_text(["red shoe", "mug"]), by_text, atol=1e-5)
    np.testing.assert_allclose(texts.encode(["red shoe", "mug"]), by_text, atol=1e-5)
    assert recipe.dim == 32


def test_an_architecture_without_weights_is_refused_and_the_tags_are_listed(load: Load) -> None:
    with pytest.raises(ModelUnavailable, match="random ones are never used") as caught:
        load("embed_image", "open_clip", "ViT-B-32")
    assert "laion2b_s34b_b79k" in str(caught.value.remedy)


def test_a_wrong_architecture_or_tag_is_answered_with_the_nearest(load: Load) -> None:
    with pytest.raises(BadInput) as caught:
        load("embed_image", "open_clip", "ViT-B-33", pretrained="openai")
    assert "ViT-B-32" in str(caught.value.remedy)
    with pytest.raises(BadInput) as caught:
        load("embed_image", "open_clip", "ViT-B-32", pretrained="laion2b_s34b_b79")
    assert caught.value.remedy == "did you mean 'laion2b_s34b_b79k'?"


def test_a_tag_beside_a_folder_is_refused(load: Load) -> None:
    with pytest.raises(BadInput, match="goes with an architecture"):
        load("embed_image", "open_clip", tiny_models.open_clip(), pretrained="openai")


def test_a_tag_loads_its_file_from_the_hubs_cache_with_its_own_preprocessing(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    settings = json.loads((tiny_models.open_clip() / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tiny-arch.json").write_text(json.dumps(settings))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    open_clip.add_model_config(tmp_path / "tiny-arch.json")
    tag = {"hf_hub": "org/tiny/", "mean": (0, 0, 0), "std": (1, 1, 1), "interpolation": "bilinear"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-arch", {"mine": tag})
    with pytest.raises(ModelUnavailable, match="'org/tiny' could not be had"):
        load("embed_image", "open_clip", "tiny-arch", pretrained="mine")
    cache = tmp_path / "hub" / "models--org--tiny"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("a" * 40)
    (cache / "snapshots").mkdir()
    shutil.copytree(tiny_models.open_clip(), cache / "snapshots" / ("a" * 40))
    encoder, recipe = load("embed_image", "open_clip", "tiny-arch", pretrained="mine")
    assert recipe.model is not None
    assert (recipe.model.id, recipe.model.revision) == ("org/tiny", "a" * 40)
    assert float(encoder.prepare(tiny_models.picture("white")).max()) == 1.0  # mean 0, std 1
    whole, _ = load("embed_image", "open_clip", tiny_models.open_clip())
    np.testing.assert_allclose(encoder.encode_text(["mug"]), whole.encode_text(["mug"]), atol=1e-6)


# ---- timm


def test_timm_gives_pooled_features_with_the_models_own_transform(load: Load) -> None:
    import timm

    encoder, recipe = load("embed_image", "timm", tiny_models.timm(), normalize=False, batch_size=2)
    model = timm.create_model(f"local-dir:{tiny_models.timm()}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    pictures = [tiny_models.picture(c, size=(90, 50)) for c in ("red", "blue", "green")]
    with torch.inference_mode():
        bare = model(torch.stack([transform(p) for p in pictures])).numpy()
    np.testing.assert_allclose(
        encoder.encode([encoder.prepare(p) for p in pictures]), bare, rtol=1e-4, atol=1e-5
    )
    assert recipe.dim == encoder.dim == bare.shape[1] == 512


def test_an_unknown_timm_model_is_answered_with_the_nearest(load: Load) -> None:
    with pytest.raises(BadInput, match="no model 'resnet5000'"):
        load("embed_image", "timm", "resnet5000")
    with pytest.raises(BadInput, match=r"no model 'resnet50\.zzz'"):
        load("embed_image", "timm", "resnet50.zzz")


def test_shorter_number_formats_are_another_recipe_and_near_the_same(load: Load) -> None:
    for kind, name, model in (
        ("embed_text", "sentence", tiny_models.sentence()),
        ("embed_image", "timm", tiny_models.timm()),
        ("embed_image", "open_clip", tiny_models.open_clip()),
    ):
        long, a = load(kind, name, model)
        short, b = load(kind, name, model, dtype="bfloat16")
        picture = tiny_models.picture("red")
        one = ["red shoe"] if kind == "embed_text" else [long.prepare(picture)]
        x, y = long.encode(one), short.encode(one)
        assert y.dtype == np.float32
        assert a.id != b.id
        assert 0 < np.abs(x - y).max() < 0.05


def test_loading_a_model_leaves_the_seed_alone() -> None:
    torch.manual_seed(7)
    first = torch.rand(1)
    torch.manual_seed(7)
    sentence._load(str(tiny_models.sentence()), "cpu", "float32", seed=1)
    assert torch.equal(first, torch.rand(1))
