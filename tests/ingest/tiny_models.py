"""Tiny models with random weights, saved as the folders that real ones come as. Each is built once a test run."""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw

WORDS = ["red", "blue", "green", "shoe", "boot", "sneaker", "mug", "cup", "tall", "wide"]
WORDS += ["a", "the", "of", "with", "for", "query", "document", "passage"]


@lru_cache(maxsize=1)
def _root() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tiny-models-")


def folder(name: str) -> Path:
    return Path(_root().name) / name


@lru_cache(maxsize=4)
def sentence(name: str = "sentence", prompts: bool = False) -> Path:
    """A sentence-transformers folder: BERT of two layers, width 32, mean pooling."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    out, bare = folder(name), folder(f"{name}-bert")
    bare.mkdir()
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        ":",
        *WORDS,
        *"abcdefghijklmnopqrstuvwxyz0123456789",
    ]
    tokens += [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
    (bare / "vocab.txt").write_text("\n".join(tokens))
    BertTokenizerFast(str(bare / "vocab.txt"), model_max_length=64).save_pretrained(bare)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(bare)
    said = {"query": "query: ", "document": "passage: "} if prompts else None
    SentenceTransformer(modules=[Transformer(str(bare)), Pooling(32)], prompts=said, device="cpu").save(
        str(out)
    )
    return out


@lru_cache(maxsize=1)
def open_clip() -> Path:
    """An open_clip folder (config and safetensors), 32 px pictures, vectors of 32."""
    import open_clip as library
    import torch
    from safetensors.torch import save_file

    out = folder("clip")
    out.mkdir()
    settings = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    torch.manual_seed(0)
    model = library.CLIP(**settings)
    save_file(
        {k: v.contiguous().clone() for k, v in model.state_dict().items()},
        out / "open_clip_model.safetensors",
    )
    (out / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": {}}))
    return out


@lru_cache(maxsize=1)
def timm() -> Path:
    """A timm folder: a small ResNet with a classifier, vectors of 512."""
    import timm as library
    import torch
    from timm.models import save_for_hf

    out = folder("timm")
    torch.manual_seed(0)
    model = library.create_model("resnet10t", pretrained=False, num_classes=7)
    save_for_hf(model, str(out), safe_serialization=True)
    return out


def picture(
    colour: str, shape: str = "ellipse", size: tuple[int, int] = (60, 60), stripes: bool = False
) -> Image.Image:
    """A shape in one colour, plain or striped, before white."""
    image = Image.new("RGB", size, "white")
    box = (size[0] // 5, size[1] // 5, size[0] * 4 // 5, size[1] * 4 // 5)
    if not stripes:
        getattr(ImageDraw.Draw(image), shape)(box, fill=colour)
        return image
    mask = Image.new("L", size, 0)
    getattr(ImageDraw.Draw(mask), shape)(box, fill=255)
    pattern = Image.new("RGB", size, colour)
    for y in range(0, size[1], 8):
        ImageDraw.Draw(pattern).rectangle((0, y, size[0], y + 3), fill="white")
    image.paste(pattern, (0, 0), mask)
    return image
