"""Fine-tuning a yes/no model that sees, against a bare loop of transformers and peft over the same examples.

    python -m benchmarks.msr_sft [--size tiny|small|3b] [--device cpu] [--steps 6] [--batch 1] [--runs 5]

Both read the same prompts and pictures, put LoRA of rank 16 on the same layers, compute layers anew on the way back and
step with AdamW; the weights are random. `3b` is Qwen2.5-VL-3B's configuration in bfloat16, for an accelerator of 24 GB
or more. Written down besides: seconds a step, examples (each with one picture) a second, and on CUDA the most memory.
"""

from __future__ import annotations

import argparse
import copy
import re
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import torch

from benchmarks import msr_models
from benchmarks.harness import Comparison, measure, save
from recommender.msr import lora
from recommender.msr.examples import Example
from recommender.msr.models import Loaded
from recommender.msr.ranker import arithmetic
from recommender.msr.sft import Answering, Examples
from tests.ingest import tiny_vlms

RANK, ALPHA, LR = 16, 32, 2e-5
SHAPES = {  # tokens of the preference, size of the picture
    "tiny": (60, (112, 84)),
    "small": (120, (112, 84)),
    "3b": (500, (448, 336)),
}


def model(size: str, device: str) -> Loaded:
    if size == "3b":
        return msr_models.qwen_3b(device)
    return msr_models.of_folder(tiny_vlms.qwen2_5_vl(times=1 if size == "tiny" else 4), device)


def ours(loaded: Loaded, told: list[Example], batch: int, steps: int) -> Callable[[], None]:
    torch.manual_seed(0)
    learned = lora.add(loaded.model, rank=RANK, alpha=ALPHA, dropout=0.0)
    objective = Answering(loaded.model, loaded.prompt, loaded.config).train()
    optimizer = torch.optim.AdamW(learned, lr=LR, fused=True)
    batches = cycle(list(Examples(told, loaded.prompt, batch, 0).epoch(1)))

    def some() -> None:
        for _ in range(steps):
            loss = objective(next(batches).to(learned[0].device))["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        float(loss.detach())

    return some


def bare(loaded: Loaded, told: list[Example], batch: int, steps: int) -> Callable[[], None]:
    """As one writes it by hand: the processor on a batch, labels of -100 but for the answer, the model's own loss."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    names = "|".join(map(re.escape, lora.language_layers(loaded.model)))
    wrapped = get_peft_model(loaded.model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=f"({names})"))
    wrapped.train()
    enable = getattr(loaded.model, "activation_checkpointing_enable", None)
    if enable is not None:
        enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        loaded.model.gradient_checkpointing_enable({"use_reentrant": False})
    device = next(wrapped.parameters()).device
    learned = [weight for weight in wrapped.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=LR, fused=True)
    prompt = loaded.prompt
    prompt.chat.tokenizer.padding_side = "left"

    def batches() -> Iterator[dict[str, Any]]:
        for start in cycle(range(0, len(told), batch)):
            some = told[start : start + batch]
            chats = [
                prompt.messages(each.preference, each.candidate, prompt._picture(each.candidate))
                for each in some
            ]
            for chat, each in zip(chats, some, strict=True):
                said = prompt.answers[0] if each.label else prompt.answers[1]
                chat.append({"role": "assistant", "content": [{"type": "text", "text": said}]})
            made = prompt.chat.processor.apply_chat_template(
                chats,
                tokenize=True,
                return_dict=True,
                processor_kwargs={"padding": True, "return_tensors": "pt"},
            )
            labels = torch.full_like(made["input_ids"], -100)
            labels[:, -3] = made["input_ids"][
                :, -3
            ]  # the answer stands before the end of the turn and a line break
            yield {**made.to(device), "labels": labels.to(device)}

    drawn = batches()

    def some() -> None:
        for _ in range(steps):
            inputs = next(drawn)
            with arithmetic(loaded.model):
                loss = wrapped(**inputs, use_cache=False).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        float(loss.detach())

    return some


def with_memory(
    action: Callable[[], None], device: str, kept: dict[str, float], name: str
) -> Callable[[], None]:
    """The same, noting the most memory that its tensors took, in GB."""
    if not device.startswith("cuda"):
        return action

    def noting() -> None:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        torch.cuda.synchronize(device)
        kept[name] = max(kept.get(name, 0.0), (torch.cuda.max_memory_allocated(device) - before) / 1e9)

    return noting


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=list(SHAPES), default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    if asked.device == "cpu":
        torch.set_num_threads(1)
    mine = model(asked.size, asked.device)
    theirs = copy.copy(model(asked.size, asked.device))
    tokens, pixels = SHAPES[asked.size]
    told = msr_models.examples(
        asked.steps * asked.batch, msr_models.preference(mine.prompt.chat.tokenizer, tokens), pixels
    )
    memory: dict[str, float] = {}
    row = measure(
        Comparison(
            f"fine-tuning, {asked.size}",
            f"{asked.steps} steps of LoRA on a {asked.size} Qwen2.5-VL, batch {asked.batch}, against a bare loop",
            with_memory(ours(mine, told, asked.batch, asked.steps), asked.device, memory, "ours"),
            with_memory(bare(theirs, told, asked.batch, asked.steps), asked.device, memory, "peer"),
            asked.steps * asked.batch,
            "examples",
            0.9,
        ),
        asked.runs,
    )
    each = {name: asked.batch / float(str(row[name])) for name in ("ours", "peer")}
    row |= {"step_seconds": each, "activation_gb": memory, "device": asked.device}
    save("msr_sft_speed" if asked.size == "tiny" else f"msr_sft_{asked.size}", [row])
    print(f"{row['what']}: {row['ours']:.2f} against {row['peer']:.2f} {row['unit']}, {row['ratio']:.2f}x")
    print(f"seconds a step {each}; memory beside the weights in GB {memory or 'not measured on a CPU'}")


if __name__ == "__main__":
    main()
