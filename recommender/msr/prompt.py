"""The one prompt: what a model reads of a preference and a candidate, in training as in ranking.

The user's part comes first and is the same for all candidates, so that it has to be computed once. A prompt that is
too long loses words from the end of the preference and of nothing else. A prompt ends where the answer begins, and the
answer is one token: its id is found by writing it there, so that training's target and ranking's logit are one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from featurestore.errors import BadInput
from ingest.describe.chat import unmarked, within
from recommender.msr.examples import Candidate

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ingest.describe.transformers_vlm import Chat

USER = "You recommend items to people. This is what a user likes, judged by what they took before:\n"
UNKNOWN = "nothing is known of them yet"
ITEM = "\n\nHere is an item that they have not taken.\n"
QUESTION = "\n\nWill this user take the item? Answer with one word, {} or {}."
TRIES = 8  # of shortening: each is nearer than the one before

Inputs = dict[
    str, "Tensor"
]  # what the model's forward takes of one prompt; each with a leading 1, ids (1, L)


@dataclass(frozen=True)
class Batch:
    """Prompts of unequal length, padded on the right. inputs: what the model's forward takes, ids (n, L). last: (n,)
    the place of each one's last token, where the answer is read. lengths of the prompts are last + 1.
    """

    inputs: dict[str, Any]
    last: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch({name: value.to(device) for name, value in self.inputs.items()}, self.last.to(device))


class Prompt:
    """Prompts of one model. length: tokens with the answer. picture: whether pictures are shown, to a model that sees.
    yes, no: the ids of the answers' tokens.

    Raises BadInput where an answer is not one token after the prompt, or both are the same.
    """

    def __init__(
        self,
        chat: Chat,
        *,
        length: int,
        max_pixels: int,
        answers: tuple[str, str] = ("yes", "no"),
        picture: bool = True,
    ) -> None:
        self.chat, self.length, self.max_pixels, self.answers = chat, length, max_pixels, answers
        self.sees = picture and chat.sees
        if chat.positions is not None and length > chat.positions:
            raise BadInput(
                f"length is {length} tokens, and the model holds {chat.positions}", remedy="a smaller length"
            )
        self.yes, self.no = (self._answer(word) for word in answers)
        if self.yes == self.no:
            raise BadInput(
                f"'{answers[0]}' and '{answers[1]}' are one and the same token to this model",
                remedy="answers that it tells apart",
            )

    # ---- one prompt

    def messages(self, preference: str, candidate: Candidate, picture: Any = None) -> list[dict[str, Any]]:
        """The chat: one turn of the user's. picture: a PIL image that stands between preference and candidate."""
        before = USER + (unmarked(preference).strip() or UNKNOWN) + ITEM
        told = [unmarked(candidate.text)]
        if candidate.summary:
            told.append(unmarked(candidate.summary))
        after = "\n".join(told) + QUESTION.format(*self.answers)
        if not self.chat.sees:
            return [{"role": "user", "content": before + after}]
        parts: list[dict[str, Any]] = [{"type": "text", "text": before + after}]
        if picture is not None:
            parts = [{"type": "text", "text": before}, {"type": "image", "image": picture}]
            parts.append({"type": "text", "text": after})
        return [{"role": "user", "content": parts}]

    def encode(self, preference: str, candidate: Candidate, name: str | None = None) -> Inputs:
        """One prompt within the budget; the answer's own token is counted and not in it.

        Raises BadInput, calling the example `name`, where it does not fit even without a preference.
        """
        picture = self._picture(candidate)
        words = self._words(preference)
        said, kept = preference, len(words)
        for _ in range(TRIES):
            inputs = self._encode(said, candidate, picture)
            over = inputs["input_ids"].shape[1] + 1 - self.length
            if over <= 0:
                return inputs
            if not kept:
                break
            kept = max(0, kept - over)
            said = preference[: words[kept - 1]] if kept else ""
        inputs = self._encode("", candidate, picture)
        if (need := inputs["input_ids"].shape[1] + 1) <= self.length:
            return inputs
        raise BadInput(
            f"{name or f'item {candidate.item!r}'}: the prompt takes {need} tokens without a preference, and "
            f"length is {self.length}",
            remedy="a larger length, a smaller max_pixels, or shorter summaries",
        )

    def _encode(self, preference: str, candidate: Candidate, picture: Any) -> Inputs:
        messages = self.messages(preference, candidate, picture)
        how: dict[str, Any] = {"return_tensors": "pt"}
        if self.chat.sees:  # a processor takes what is for the tokenizer apart
            how = {"processor_kwargs": how}
        return dict(
            self._template([messages], add_generation_prompt=True, tokenize=True, return_dict=True, **how)
        )

    def _template(self, chat: Any, **how: Any) -> Any:
        """The chat as the model's template writes it. Raises BadInput where that refuses it."""
        from jinja2 import TemplateError

        try:
            return self.chat.processor.apply_chat_template(chat, **how)
        except TemplateError as error:
            raise BadInput(
                f"the model's chat template refuses a question and its answer: {error}",
                remedy="another model, tuned to follow instructions",
            ) from error

    def _picture(self, candidate: Candidate) -> Any:
        if candidate.picture is None or not self.sees:
            return None
        from ingest.pictures import decode

        return within(decode(candidate.picture.read()), self.max_pixels)

    def _words(self, preference: str) -> list[int]:
        """Where each token of a preference ends, in characters."""
        found = self.chat.tokenizer(preference, add_special_tokens=False, return_offsets_mapping=True)
        return [end for _, end in found["offset_mapping"]]

    def _answer(self, word: str) -> int:
        """The id of an answer where the prompt ends, written as the chat template itself writes an answer."""
        asked = self.messages("", Candidate("", ""))
        reply: Any = [{"type": "text", "text": word}] if self.chat.sees else word
        prompt = self._template(asked, add_generation_prompt=True, tokenize=False)
        whole = self._template([*asked, {"role": "assistant", "content": reply}], tokenize=False)
        rest = whole[len(prompt) :] if whole.startswith(prompt) else ""
        written = rest[: len(rest) - len(rest.lstrip())] + word if rest.lstrip().startswith(word) else word
        before, after = self._ids(prompt), self._ids(prompt + written)
        if after[: len(before)] != before or len(after) != len(before) + 1:
            pieces = self.chat.tokenizer.convert_ids_to_tokens(self._ids(written))
            raise BadInput(
                f"the answer '{word}' is not one token after this model's prompt: {pieces}",
                remedy='answers that are: answers = ["Yes", "No"], for instance',
            )
        return after[-1]

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self.chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    # ---- several

    @cached_property
    def image_tokens(self) -> frozenset[int]:
        """Ids that stand for a picture's patches; what stands before the first of them is text alone."""
        config, found = self.chat.model.config, set()
        for owner in (config, self.chat.processor):
            for name in ("image_token_id", "image_token_index"):
                value = getattr(owner, name, None)
                if isinstance(value, int):
                    found.add(value)
        return frozenset(found)

    def collate(self, rows: Sequence[Mapping[str, Tensor]]) -> Batch:
        """Prompts as one batch. What has a place for each token is padded on the right, what belongs to pictures is
        put one after the other; tiles of pictures are filled up with zeros, as their sizes tell the model.
        """
        import torch

        lengths = torch.tensor([row["input_ids"].shape[1] for row in rows])
        longest = int(lengths.max())
        pad = {"input_ids": self.chat.tokenizer.pad_token_id}
        inputs: dict[str, Any] = {}
        for name in dict.fromkeys(name for row in rows for name in row):
            values = [row[name] for row in rows if name in row]
            if all(name in row and row[name].shape == row["input_ids"].shape for row in rows):
                inputs[name] = torch.cat([_widened(v, longest, pad.get(name, 0)) for v in values])
            else:
                inputs[name] = _stacked(values)
        return Batch(inputs, lengths - 1)


def _widened(value: Tensor, width: int, fill: int) -> Tensor:
    import torch

    return torch.nn.functional.pad(value, (0, width - value.shape[1]), value=fill)


def _stacked(values: Sequence[Tensor]) -> Tensor:
    """One after the other along the first axis, the other axes filled up with zeros to the largest."""
    import torch

    sizes = [max(v.shape[axis] for v in values) for axis in range(1, values[0].dim())]
    filled = []
    for value in values:
        room = [size - have for size, have in zip(sizes, value.shape[1:], strict=True)]
        filled.append(
            torch.nn.functional.pad(value, [n for r in reversed(room) for n in (0, r)])
            if any(room)
            else value
        )
    return torch.cat(filled)
