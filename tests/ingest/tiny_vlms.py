"""Tiny vision-language and language models with random weights, saved as the folders that real ones come as.

The tokenizer is trained here, so nothing is fetched. Weights are drawn wider than is usual: with the usual ones every
prompt would be answered alike, and a test that compares answers would compare nothing.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.ingest.tiny_models import folder

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
SPECIAL += ["<|image_pad|>", "<|video_pad|>"]
IMAGE, VIDEO, END, PAD = "<|image_pad|>", "<|video_pad|>", "<|im_end|>", "<|endoftext|>"
WORDS = ["a red shoe on a white table", "describe the picture in one sentence", "system user assistant"] * 20
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
KINDS = ("qwen2_5_vl", "qwen3_vl", "llava_next")


def _template(image: str) -> str:
    return (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}" + image + "{% else %}{{ c['text'] }}{% endif %}"
        "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def _tokenizer(template: str) -> Any:
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words.train_from_iterator(
        WORDS, trainers.BpeTrainer(vocab_size=400, show_progress=False, initial_alphabet=alphabet)
    )
    words.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    named = {"image_token": IMAGE, "video_token": VIDEO}
    named |= {"vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=named,
        chat_template=template,
        model_max_length=4096,
    )


def _text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.convert_tokens_to_ids(PAD),
        "eos_token_id": tokenizer.convert_tokens_to_ids(END),
        "pad_token_id": tokenizer.convert_tokens_to_ids(PAD),
        **more,
    }


def _save(name: str, config: Any, model_class: Any, processor: Any, tokenizer: Any) -> Path:
    import torch
    from transformers import GenerationConfig

    out = folder(name)
    torch.manual_seed(0)
    model = model_class(config).eval()
    end, pad = tokenizer.convert_tokens_to_ids(END), tokenizer.convert_tokens_to_ids(PAD)
    never = [
        tokenizer.convert_tokens_to_ids(name) for name in SPECIAL if name != END
    ]  # as trained ones do not
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad, suppress_tokens=never)
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return out


@lru_cache(maxsize=1)
def llm() -> Path:
    """A Llama of two layers, text only."""
    import transformers

    tokenizer = _tokenizer(_template(""))
    config = transformers.LlamaConfig(**_text(tokenizer))
    return _save("llm", config, transformers.LlamaForCausalLM, tokenizer, tokenizer)


@lru_cache(maxsize=4)
def vlm(kind: str) -> Path:
    """One of KINDS."""
    return {"qwen2_5_vl": qwen2_5_vl, "qwen3_vl": _qwen3_vl, "llava_next": _llava_next}[kind]()


def _qwen_processor(tokenizer: Any, processor: Any, video: Any, patch: int) -> Any:
    from transformers import Qwen2VLImageProcessor

    sizes = {"shortest_edge": (patch * 2) ** 2, "longest_edge": (patch * 2 * 8) ** 2}
    given = {"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2, "size": sizes}
    given |= {"image_mean": MEAN, "image_std": STD}
    return processor(
        image_processor=Qwen2VLImageProcessor(**given),
        tokenizer=tokenizer,
        video_processor=video(**given),
        chat_template=tokenizer.chat_template,
    )


def _qwen_ids(tokenizer: Any) -> dict[str, Any]:
    names = {"image_token_id": IMAGE, "video_token_id": VIDEO}
    names |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    return {key: tokenizer.convert_tokens_to_ids(name) for key, name in names.items()}


def _rope(sections: list[int]) -> dict[str, Any]:
    return {"rope_type": "default", "mrope_section": sections, "rope_theta": 10000.0}


def qwen2_5_vl(times: int = 1) -> Path:
    """times: how much wider and deeper than the smallest."""
    import transformers as library

    tokenizer = _tokenizer(_template(f"<|vision_start|>{IMAGE}<|vision_end|>"))
    wide = 64 * times
    vision = {
        "depth": 2,
        "hidden_size": wide,
        "intermediate_size": 2 * wide,
        "num_heads": 4,
        "patch_size": 14,
    }
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112, "out_hidden_size": wide}
    vision |= {"fullatt_block_indexes": [1], "initializer_range": 0.2}
    text = {"hidden_size": wide, "intermediate_size": 2 * wide, "num_hidden_layers": 2 * times}
    config = library.Qwen2_5_VLConfig(
        text_config=_text(tokenizer, **text, rope_parameters=_rope([2 * times, 3 * times, 3 * times])),
        vision_config=vision,
        tie_word_embeddings=False,
        **_qwen_ids(tokenizer),
    )
    processor = _qwen_processor(
        tokenizer, library.Qwen2_5_VLProcessor, library.Qwen2VLVideoProcessor, patch=14
    )
    return _save(
        f"qwen2_5_vl_{times}", config, library.Qwen2_5_VLForConditionalGeneration, processor, tokenizer
    )


def _qwen3_vl() -> Path:
    import transformers as library

    tokenizer = _tokenizer(_template(f"<|vision_start|>{IMAGE}<|vision_end|>"))
    vision = {"depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "patch_size": 16}
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64}
    vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1], "initializer_range": 0.2}
    rope = _rope([4, 2, 2]) | {"mrope_interleaved": True}
    config = library.Qwen3VLConfig(
        text_config=_text(tokenizer, head_dim=16, rope_parameters=rope),
        vision_config=vision,
        tie_word_embeddings=False,
        **_qwen_ids(tokenizer),
    )
    processor = _qwen_processor(tokenizer, library.Qwen3VLProcessor, library.Qwen3VLVideoProcessor, patch=16)
    return _save("qwen3_vl", config, library.Qwen3VLForConditionalGeneration, processor, tokenizer)


def _llava_next() -> Path:
    """A CLIP tower of 56 px before a Llama; a picture is cut into tiles of that size, as its shape asks."""
    import transformers as library

    tokenizer = _tokenizer(_template(f"{IMAGE}\n"))
    pins = [[56, 112], [112, 56], [112, 112]]
    vision = library.CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
        projection_dim=64,
        initializer_factor=5.0,
    )
    config = library.LlavaNextConfig(
        vision_config=vision,
        text_config=library.LlamaConfig(**_text(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_grid_pinpoints=pins,
        tie_word_embeddings=False,
    )
    images = library.LlavaNextImageProcessor(
        size={"shortest_edge": 56},
        crop_size={"height": 56, "width": 56},
        image_grid_pinpoints=pins,
        image_mean=MEAN,
        image_std=STD,
    )
    processor = library.LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=tokenizer.chat_template,
    )
    return _save("llava_next", config, library.LlavaNextForConditionalGeneration, processor, tokenizer)
