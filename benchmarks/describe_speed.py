"""Items a second of the `transformers` describer against the library's own generate, at the same batch.

    python -m benchmarks.describe_speed [--model FOLDER] [--items 32] [--batch 8] [--tokens 32] [--device cpu]

Without `--model` a small Qwen2.5-VL with random weights is made: what the describer adds is the same, its texts are
worthless. The peer gets the requests in the describer's order, since order decides how much padding there is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness import Comparison, measure, save
from ingest.describe.base import Answer, Request, Turn
from ingest.describe.transformers_vlm import TransformersDescriber, TransformersOptions, load_chat
from tests.ingest import tiny_vlms


def requests(items: int) -> list[Request]:
    rng = np.random.default_rng(0)
    asked = []
    for k in range(items):
        pixels = rng.integers(0, 255, (int(rng.integers(80, 260)), 180, 3), dtype=np.uint8)
        text = "describe the picture in one sentence " * int(rng.integers(1, 4))
        asked.append(Request(str(k), (Turn("user", (Image.fromarray(pixels), text)),)))
    return asked


def comparison(model: Path, items: int, batch: int, tokens: int, device: str) -> Comparison:
    import torch

    options = TransformersOptions(prompt="bench", max_tokens=tokens, dtype="float32")
    chat = load_chat(model, options, device)
    describer = TransformersDescriber(chat, options, batch)
    asked = requests(items)
    answers: dict[int, str] = {}

    def ours() -> None:
        for place, answer in describer.describe(asked):
            assert isinstance(answer, Answer)
            answers[place] = answer.text

    ours()
    order = list(answers)  # as the describer went through them
    chats = [_chat(asked[place]) for place in order]

    def peer() -> list[str]:
        found: list[str] = []
        for start in range(0, items, batch):
            inputs = chat.processor.apply_chat_template(
                chats[start : start + batch],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                processor_kwargs={"padding": True, "return_tensors": "pt"},
            ).to(device)
            with torch.inference_mode():
                made = chat.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
            texts = chat.tokenizer.batch_decode(
                made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
            )
            found.extend(texts)
        return found

    assert peer() == [answers[place] for place in order], "the two do not do the same work"
    return Comparison(
        "describing",
        f"the transformers describer against the library's generate, {items} pictures, batch {batch}, {tokens} tokens",
        ours,
        peer,
        items,
        "items",
        0.9,
    )


def _chat(request: Request) -> list[dict[str, Any]]:
    picture, text = request.turns[0].parts
    return [
        {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": text}]}
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    model = args.model or tiny_vlms.qwen2_5_vl(times=4)
    save(
        "describe_speed",
        [measure(comparison(model, args.items, args.batch, args.tokens, args.device))],
    )


if __name__ == "__main__":
    main()
