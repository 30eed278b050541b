"""Tiny models with random weights, pictures and examples, for what is asked yes or no. Their answers are y and n, which
are one token in the tiny tokenizers.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recommender.msr import models
from recommender.msr.config import MsrConfig
from recommender.msr.examples import Candidate, Example, Picture
from tests.ingest import tiny_vlms
from tests.ingest.tiny_vlms import END, IMAGE, MEAN, PAD, STD

SEEING = ("qwen2_5_vl", "qwen3_vl", "llava_next", "gemma3")
LIKES = "a red shoe on a white table; describe the picture in one sentence; " * 4


@lru_cache(maxsize=8)
def folder(kind: str) -> Path:
    """llm, one of SEEING, or both_ways, a text model whose every token sees every other."""
    made = {"llm": tiny_vlms.llm, "gemma3": _gemma3, "both_ways": _both_ways}
    return made[kind]() if kind in made else tiny_vlms.vlm(kind)


def _both_ways() -> Path:
    import transformers as library

    words = tiny_vlms._tokenizer(tiny_vlms._template(""))
    text = {"head_dim": 16, "layer_types": ["full_attention"] * 2, "use_bidirectional_attention": True}
    config = library.Gemma3TextConfig(**tiny_vlms._text(words, query_pre_attn_scalar=16, **text))
    return tiny_vlms._save("both_ways", config, library.Gemma3ForCausalLM, words, words)


def _gemma3() -> Path:
    """A picture's tokens see each other both ways; half of the layers see a window of 64 tokens."""
    import torch
    import transformers as library

    template = tiny_vlms._template("<|vision_start|>")
    words = tiny_vlms._tokenizer(template)
    named = {"image_token": IMAGE, "boi_token": "<|vision_start|>", "eoi_token": "<|vision_end|>"}
    tokenizer = library.PreTrainedTokenizerFast(
        tokenizer_object=words.backend_tokenizer,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=named,
        chat_template=template,
        model_max_length=4096,
    )
    text = {"head_dim": 16, "sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]}
    text |= {"query_pre_attn_scalar": 16}
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    token = tokenizer.convert_tokens_to_ids
    config = library.Gemma3Config(
        text_config=tiny_vlms._text(tokenizer, **text),
        vision_config=vision | {"image_size": 56, "patch_size": 14},
        mm_tokens_per_image=4,
        image_token_id=token(IMAGE),
        boi_token_index=token("<|vision_start|>"),
        eoi_token_index=token("<|vision_end|>"),
    )
    images = library.Gemma3ImageProcessor(size={"height": 56, "width": 56}, image_mean=MEAN, image_std=STD)
    processor = library.Gemma3Processor(
        image_processor=images, tokenizer=tokenizer, chat_template=template, image_seq_length=4
    )
    kind = library.Gemma3ForConditionalGeneration
    out = tiny_vlms._save("gemma3", config, kind, processor, tokenizer)
    model = kind.from_pretrained(out)
    torch.manual_seed(1)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.3)  # else zeros
    model.save_pretrained(out)
    return out


def config(kind: str, **given: Any) -> MsrConfig:
    return MsrConfig.of(**({"model": str(folder(kind)), "answers": ("y", "n")} | given))


def loaded(kind: str, **given: Any) -> models.Loaded:
    return models.load(folder(kind), config(kind, **given), "cpu")


def picture(number: int) -> Picture:
    """Noise of a shape of its own."""
    pixels = np.random.default_rng(number).integers(0, 255, (40 + 12 * number, 60, 3), dtype=np.uint8)
    kept = io.BytesIO()
    Image.fromarray(pixels).save(kept, "PNG")
    return Picture(f"noise {number}", kept.getvalue)


def candidates(n: int, pictures: bool = True) -> list[Candidate]:
    """Of unequal length, every third without a picture."""
    return [
        Candidate(
            f"i{k}",
            "red shoe " * (1 + k % 4) + str(k),
            "a white table" if k % 2 else None,
            picture(k % 4) if pictures and k % 3 else None,
        )
        for k in range(n)
    ]


def examples(n: int, pictures: bool = True) -> list[Example]:
    """Answered yes where the item is red."""
    found = []
    for k in range(n):
        likes, has = ("red", "white")[k % 2], ("red", "white")[k // 2 % 2]
        shown = picture(k % 3) if pictures and k % 4 else None
        item = Candidate(f"i{k % 7}", f"{has} table", None, shown)
        found.append(Example(f"u{k % 5}", f"{likes} shoe, {likes} table", item, has == "red"))
    return found
