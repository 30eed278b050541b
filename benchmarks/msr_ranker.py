"""Candidates a second of the yes/no ranker with the user's part computed once, against each prompt computed whole.

    python -m benchmarks.msr_ranker [--model FOLDER] [--tokens 1000] [--candidates 21] [--runs 3] [--device cpu]
                                    [--dtype float32] [--answers yes,no]

Without `--model`: a Llama and a Qwen2.5-VL of 4 layers with random weights. Both ways
answer the same to 1e-4, which is checked first; pictures are encoded in both. One thread on a CPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks import msr_models
from benchmarks.harness import Comparison, measure, save
from recommender.msr.models import Loaded
from recommender.msr.ranker import Ranker
from tests.ingest import tiny_vlms

PIXELS = (112, 84)
CLOSE = {torch.float32: 1e-4}


def comparison(name: str, loaded: Loaded, tokens: int, n: int) -> Comparison:
    told = msr_models.preference(loaded.prompt.chat.tokenizer, tokens)
    asked = msr_models.candidates(n, PIXELS if loaded.prompt.sees else None)
    cached, plain = (Ranker(loaded.model, loaded.prompt, cached=way) for way in (True, False))
    off = np.abs(cached.score(told, asked) - plain.score(told, asked)).max()
    assert off <= CLOSE.get(loaded.model.dtype, 0.05), f"the two ways differ by {off:.2g}"
    assert cached.cached, f"{name} cannot be continued from a shared beginning"
    return Comparison(
        name,
        f"{name}: {n} candidates after a preference of {tokens} tokens, shared against each computed whole",
        lambda: cached.score(told, asked),
        lambda: plain.score(told, asked),
        n,
        "candidates",
        5.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=21)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--answers", default="yes,no", help="of --model")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.model:
        yes, no = asked.answers.split(",")
        found = {
            asked.model.name: msr_models.of_folder(asked.model, asked.device, (yes, no), dtype=asked.dtype)
        }
    else:
        folders = {
            "llama, 4 layers": msr_models.language_model(),
            "qwen2.5-vl, 4 layers": tiny_vlms.qwen2_5_vl(times=2),
        }
        found = {
            name: msr_models.of_folder(folder, asked.device, dtype=asked.dtype)
            for name, folder in folders.items()
        }
    rows = [
        measure(comparison(name, loaded, asked.tokens, asked.candidates), asked.runs)
        for name, loaded in found.items()
    ]
    save("msr_ranker_speed" if not asked.model else "msr_ranker_model", rows)
    for row in rows:
        print(
            f"{row['what']}: {row['ours']:.1f} against {row['peer']:.1f} {row['unit']}, {row['ratio']:.1f}x"
        )


if __name__ == "__main__":
    main()
