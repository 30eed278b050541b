"""The tiny language model that stands in for an MLLM: what it is, and what it is taught before anybody's taste.

A model with random weights cannot be fine-tuned by adapters alone: they turn what a model knows, and it knows nothing.
A real one knows how to compare two texts. So this one is taught that, with all its weights, and on texts that are held
apart from the shop: words drawn at random from its vocabulary, in which no item, user or event occurs.

    marked    a list of words, then more words, for each of which it says whether it stood in the list: `old` or `new`
    asked     the study's own prompt around a random list and a random text. Half of the answers say how many words of
              the text stood in the list: `none`, `few` or `many`. The other half are `yes` or `no` by a coin: it learns
              that these are answers, and nothing of when.

Then what is left of a preference for yes or no is taken out: AUC asks for an order only, however small the differences
are, and a coin leaves small ones. So before it is fine-tuned the model is at chance, or next to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recommender.msr import prompt

WIDTH, LAYERS, HEADS, POSITIONS = 64, 3, 2, 512
SPREAD = (
    0.1  # of the first weights: with the usual .02 two words are told apart only after thousands of steps
)
START, END, PAD, UNKNOWN = "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|unknown|>"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COUNTS = ("none", "few", "many")
TEXT_WORDS = 8  # of a random text
MARKS = ("old", "new")
Rng = np.random.Generator


def make_tokenizer(words: Sequence[str]) -> Any:
    """One token a word, capitals apart from nothing; the words of the prompts are added."""
    import transformers
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

    said = [prompt.USER, prompt.ITEM, prompt.QUESTION, prompt.UNKNOWN, *MARKS, *COUNTS]
    said += ["system user assistant yes no ; -", *words]
    split = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
    found: dict[str, int] = {UNKNOWN: 0}
    for text in said:
        for word, _ in split.pre_tokenize_str(text.lower()):
            found.setdefault(word, len(found))
    built = Tokenizer(models.WordLevel(found, unk_token=UNKNOWN))
    built.normalizer = normalizers.Lowercase()
    built.pre_tokenizer = split
    built.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in (START, END, PAD)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=built,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        chat_template=TEMPLATE,
        model_max_length=POSITIONS,
    )


def make_model(tokenizer: Any, seed: int = 0) -> Any:
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=POSITIONS,
        rope_theta=1e6,
        initializer_range=SPREAD,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers.LlamaForCausalLM(config)


class Lessons:
    """Batches of token ids with targets, -100 where nothing is to be learnt. words: those that texts are drawn from."""

    def __init__(self, tokenizer: Any, words: Sequence[str], seed: int = 0) -> None:
        self.tokenizer = tokenizer
        ids = tokenizer(list(words), add_special_tokens=False)["input_ids"]
        self.words = np.array(sorted({token for row in ids for token in row if token}))
        self.rng: Rng = np.random.default_rng(seed)
        self.comma = self.id(";")

    def id(self, word: str) -> int:
        return int(self.tokenizer.convert_tokens_to_ids(word))

    def marked(self, size: int, listed: int, more: int = 16) -> tuple[Any, Any]:
        """`listed` words in each list, and `more` after it; the answer about a word has its place at the word."""
        import torch

        old, new = (self.id(mark) for mark in MARKS)
        rows = np.empty((size, 2 * listed + more), dtype=np.int64)
        targets = np.full(rows.shape, -100, dtype=np.int64)
        for row, target in zip(rows, targets, strict=True):
            drawn = self.rng.choice(self.words, listed + more, replace=False)
            row[: 2 * listed : 2], row[1 : 2 * listed : 2] = drawn[:listed], self.comma
            known = self.rng.random(more) < 0.5
            row[2 * listed :] = np.where(known, self.rng.choice(drawn[:listed], more), drawn[listed:])
            target[2 * listed :] = np.where(known, old, new)
        return torch.tensor(rows), torch.tensor(targets)

    def asked(self, size: int, lines: int, many: int) -> tuple[Any, Any]:
        """Prompts over random lists of so many lines, with at least `many` words in common where there are many; fewer
        are few, which are asked about once many are as few as four.
        """
        import torch

        rows, answers = [], []
        for _ in range(size):
            listed = self.rng.choice(self.words, (int(self.rng.integers(2, lines + 1)), 8))
            text = self.rng.choice(np.setdiff1d(self.words, listed), TEXT_WORDS, replace=False)
            kind = int(self.rng.integers(3)) if many <= 4 else 2 * int(self.rng.integers(2))
            shared = (0, int(self.rng.integers(1, many)), int(self.rng.integers(many, TEXT_WORDS + 1)))[kind]
            places = self.rng.permutation(TEXT_WORDS)[:shared]
            text[places] = self.rng.choice(listed.ravel(), shared)
            rows.append(self._prompt(listed, text))
            coin = self.rng.random(2) < 0.5
            answers.append(self.id(("yes" if coin[1] else "no") if coin[0] else COUNTS[kind]))
        longest = max(len(row) for row in rows)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
        targets = torch.full_like(ids, -100)
        for place, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            targets[place, len(row) - 1] = answer
        return ids, targets

    def _prompt(self, listed: Any, text: Any) -> list[int]:
        told = "\n".join("- " + self.tokenizer.decode(line) for line in listed)
        said = prompt.USER + told + prompt.ITEM + self.tokenizer.decode(text)
        asked = [{"role": "user", "content": said + prompt.QUESTION.format("yes", "no")}]
        ids: list[int] = self.tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        return ids


def teach(model: Any, lessons: Lessons, steps: int, told: Callable[[str], None], lr: float = 3e-3) -> None:
    """All weights. First the marks, then both lessons in turn; each gets harder as the model gets it right."""
    import torch
    from torch.nn.functional import cross_entropy

    coins = torch.tensor([lessons.id("yes"), lessons.id("no")])
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    level = {"marked": 1, "asked": 1}
    right = {"marked": 0.5, "asked": 0.5}
    for step in range(steps):
        lesson = "marked" if step < steps // 3 or step % 4 == 0 else "asked"
        hard = level[lesson]
        if lesson == "marked":
            ids, targets = lessons.marked(32, 2 * hard)
        else:
            ids, targets = lessons.asked(32, 1 + hard, max(3, 8 - hard))
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 50, (steps - step) / (0.3 * steps))
        hidden = model.model(input_ids=ids).last_hidden_state
        wanted = targets != -100
        logits, answers = model.lm_head(hidden[wanted]), targets[wanted]
        loss = cross_entropy(logits, answers)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        known = ~torch.isin(answers, coins)  # what cannot be known is not counted
        said = logits[known].index_fill(1, coins, -torch.inf).argmax(-1)
        right[lesson] += 0.05 * (float((said == answers[known]).float().mean()) - right[lesson])
        if right[lesson] > 0.8 and hard < {"marked": 20, "asked": 12}[lesson]:
            level[lesson], right[lesson] = hard + 1, 0.7
        if (step + 1) % 100 == 0:
            state = ", ".join(f"{name} {right[name]:.2f} at level {level[name]}" for name in right)
            told(f"step {step + 1} of {steps}: {state}")


def neutral(model: Any, lessons: Lessons) -> None:
    """Take out of what parts `yes` from `no` the directions that hold 99 % of how the last state differs between random
    prompts. The output's weights are its own from here on, those of the input stay.
    """
    import torch

    states = []
    with torch.no_grad():
        for _ in range(40):
            ids, targets = lessons.asked(32, 12, 3)
            states.append(model.model(input_ids=ids).last_hidden_state[targets != -100])
        values, vectors = torch.linalg.eigh(torch.cov(torch.cat(states).T))
        share = values.flip(0).cumsum(0) / values.sum()
        kept = vectors.flip(1)[:, : int((share < 0.99).sum()) + 1]
        weights = model.lm_head.weight.detach().clone()
        yes, no = lessons.id("yes"), lessons.id("no")
        middle, apart = (weights[yes] + weights[no]) / 2, weights[yes] - weights[no]
        apart = apart - kept @ (kept.T @ apart)
        weights[yes], weights[no] = middle + apart / 2, middle - apart / 2
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(weights)


def save(
    folder: Path, words: Sequence[str], *, steps: int = 2000, told: Callable[[str], None] = print
) -> Path:
    """A folder as real models come: weights, configuration, tokenizer with its chat template."""
    tokenizer = make_tokenizer(words)
    model = make_model(tokenizer)
    lessons = Lessons(tokenizer, words)
    teach(model, lessons, steps, told)
    neutral(model, lessons)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
