"""Models of a given size with random weights, and what they are asked: right for measuring speed, for nothing else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ingest.describe.transformers_vlm import Chat
from recommender.msr.config import MsrConfig
from recommender.msr.examples import Candidate, Example, Picture
from recommender.msr.models import Loaded, load, prompt_of
from tests.ingest import tiny_vlms

ANSWERS = ("y", "n")  # one token each in the tiny tokenizers
WORDS = ["red", "shoe", "white", "table", "picture", "sentence", "describe", "one"]
QWEN_3B = {  # Qwen2.5-VL-3B-Instruct
    "text": {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32_768,
        "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
    },
    "vision": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "out_hidden_size": 2048,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
}


def language_model(times: int = 2) -> Path:
    """A Llama of 4 layers and width 128 (times 2), saved as a folder."""
    import transformers

    words = tiny_vlms._tokenizer(tiny_vlms._template(""))
    wide = {"hidden_size": 64 * times, "intermediate_size": 192 * times, "num_hidden_layers": 2 * times}
    config = transformers.LlamaConfig(**tiny_vlms._text(words, **wide))
    return tiny_vlms._save(f"llm_{times}", config, transformers.LlamaForCausalLM, words, words)


def of_folder(folder: Path, device: str, answers: tuple[str, str] = ANSWERS, **options: Any) -> Loaded:
    config = MsrConfig.of(**({"model": str(folder), "answers": answers, "length": 4096} | options))
    return load(folder, config, device)


def qwen_3b(device: str, **options: Any) -> Loaded:
    """Qwen2.5-VL of 3.75 thousand million random weights in bfloat16, made on the device, saved nowhere."""
    import torch
    import transformers as library

    small = of_folder(tiny_vlms.qwen2_5_vl(), "cpu").prompt.chat
    chosen = QWEN_3B["text"] | {
        name: getattr(small.model.config.text_config, name)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    config = library.Qwen2_5_VLConfig(
        text_config=chosen,
        vision_config=QWEN_3B["vision"],
        tie_word_embeddings=True,
        **tiny_vlms._qwen_ids(small.tokenizer),
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = library.Qwen2_5_VLForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    images = small.processor.image_processor
    images.size = {"shortest_edge": 56 * 56, "longest_edge": 1280 * 28 * 28}
    chat = Chat(model, small.processor, small.tokenizer, True, small.ends, 32_768)
    made = MsrConfig.of(
        **({"model": "random-3b", "answers": ANSWERS, "length": 4096, "dtype": "bfloat16"} | options)
    )
    return Loaded(model, prompt_of(chat, made), made)


def preference(tokenizer: Any, tokens: int) -> str:
    """Words of about so many tokens."""
    drawn = np.random.default_rng(0).choice(WORDS, size=tokens).tolist()
    ends = tokenizer(" ".join(drawn), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return " ".join(drawn)[: ends[min(tokens, len(ends)) - 1][1]]


def candidates(n: int, pixels: tuple[int, int] | None) -> list[Candidate]:
    """Titles of some words, each with a picture of `pixels` (width, height), or none."""
    random = np.random.default_rng(1)
    found = []
    for k in range(n):
        title = " ".join(random.choice(WORDS, size=random.integers(2, 6)).tolist())
        found.append(Candidate(f"i{k}", title, None, None if pixels is None else _noise(k, pixels)))
    return found


def examples(n: int, told: str, pixels: tuple[int, int] | None) -> list[Example]:
    return [Example(f"u{k}", told, each, k % 2 == 0) for k, each in enumerate(candidates(n, pixels))]


def _noise(number: int, pixels: tuple[int, int]) -> Picture:
    drawn = np.random.default_rng(number).integers(0, 255, (pixels[1], pixels[0], 3), dtype=np.uint8)
    kept = io.BytesIO()
    Image.fromarray(drawn).save(kept, "PNG")
    return Picture(f"noise {number}", kept.getvalue)
