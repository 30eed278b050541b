"""`transformers`: image-text-to-text models, and text-only ones, run in this process from a hub id or a local folder.

Greedy unless a temperature is set; then each request draws from its own seed, so that an answer depends neither on the
batch that it was computed in nor on what came before. Requests go in batches of similar length, padded on the left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from featurestore.errors import BadInput, CellError, MissingExtra, ModelUnavailable
from ingest.describe.base import RUNTIME, Answer, Maker, Request, Resolved, register
from ingest.describe.chat import PicturedOptions, parts, pictures
from ingest.describe.sampling import draws, request_seed
from ingest.encode.base import BatchSize, free, out_of_memory, pick_device
from ingest.encode.models import Models, Weights, loading, no_bars

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from ingest.encode.base import Tools

SAFETENSORS = Weights(("model.safetensors", "model-*.safetensors"))
BATCH, ACCELERATOR_BATCH = 2, 16
TOKEN_CHARACTERS, TOKEN_PIXELS = (
    4,
    28 * 28,
)  # roughly what makes a token, to put requests of a length together


class TransformersOptions(PicturedOptions):
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto",
        description="Number format of weights and arithmetic; auto: as the weights were saved.",
    )
    temperature: float = Field(
        default=0.0, ge=0, le=5, description="0 takes the likeliest token each time; above, tokens are drawn."
    )
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="Draw among the likeliest tokens that together have this share."
    )
    seed: int = Field(default=0, ge=0, description="Of the draws, with a temperature.")
    repetition_penalty: float | None = Field(
        default=None, gt=0, le=5, description="Above 1 discourages repeating; without it, the model's own."
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        default="sdpa", description="Which implementation of attention runs.", json_schema_extra=RUNTIME
    )
    device_map: Literal["one", "auto"] = Field(
        default="one",
        description="auto spreads the layers over all accelerators (needs the package accelerate).",
        json_schema_extra=RUNTIME,
    )


@register("transformers", options=TransformersOptions)
class Transformers(Maker[TransformersOptions]):
    def resolve(
        self, options: TransformersOptions, model: str | None, models: Models, device: str = "auto"
    ) -> Resolved:
        if model is None:
            raise BadInput(
                "encoder 'transformers' needs a model",
                remedy='model = "Qwen/Qwen2.5-VL-3B-Instruct", or a folder',
            )
        found = models.find(model, SAFETENSORS)
        config, _ = _architecture(found.folder)
        _processor(found.folder)
        resolved = options.recipe() | {"dtype": _dtype(config, options)}
        return Resolved(options=resolved, model=found.ref)

    def load(self, recipe: Recipe, options: TransformersOptions, tools: Tools) -> TransformersDescriber:
        assert recipe.model is not None
        folder = tools.models.open(recipe.model, SAFETENSORS, tools.hint)
        names = TransformersOptions.model_fields.keys() & recipe.options.keys()
        fixed = options.model_copy(update={name: recipe.options[name] for name in names})
        device = pick_device(tools.device)
        batch = tools.batch_size or (BATCH if device == "cpu" else ACCELERATOR_BATCH)
        return TransformersDescriber(load_chat(folder, fixed, device), fixed, batch)


@dataclass(frozen=True)
class Chat:
    """A loaded model with what makes its inputs. ends: tokens that end an answer; positions: tokens it can hold."""

    model: Any
    processor: Any
    tokenizer: Any
    sees: bool
    ends: frozenset[int]
    positions: int | None


class TransformersDescriber:
    def __init__(self, chat: Chat, options: TransformersOptions, batch_size: int) -> None:
        self._chat: Chat | None = chat
        self._options = options
        self._rows = BatchSize(batch_size)
        self._answered = False

    def describe(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | CellError]]:
        """Longest first, so that what does not fit into memory shows at once.

        Raises BadInput where the model reads no pictures or its chat template does not take such turns, and
        ModelUnavailable where not even the first request fits into memory.
        """
        groups: dict[
            int, list[int]
        ] = {}  # a batch has requests of one number of pictures: processors ask for that
        for place, request in enumerate(requests):
            groups.setdefault(pictures(request), []).append(place)
        for _, places in sorted(groups.items(), reverse=True):
            places.sort(key=lambda place: (-_length(requests[place], self._options.max_pixels), place))
            while places:
                answers = self._batch([requests[place] for place in places[: self._rows.size]])
                yield from zip(
                    places, answers, strict=False
                )  # memory may have sufficed for fewer than were given
                places = places[len(answers) :]

    def close(self) -> None:
        self._chat = None
        free()

    def _batch(self, requests: Sequence[Request]) -> list[Answer | CellError]:
        """Answers to the first of `requests`, to as many as fit into memory."""
        assert self._chat is not None, "the describer was closed"
        try:
            answers = self._rows.run(lambda rows, size: self._answers(rows[:size]), requests)
        except Exception as error:
            if not out_of_memory(error):
                raise
            if not self._answered:
                raise ModelUnavailable(
                    f"one request does not fit into the memory of {self._chat.model.device} beside the model",
                    remedy='a smaller max_pixels or max_tokens, dtype = "bfloat16", or a smaller model',
                ) from error
            message = "the request does not fit into memory beside the model"
            return [CellError("out_of_memory", message, transient=True)]
        self._answered = self._answered or any(isinstance(answer, Answer) for answer in answers)
        return answers

    def _answers(self, requests: Sequence[Request]) -> list[Answer | CellError]:
        """One for each request. What the processor does not take, or the model cannot hold, is an error of its own."""
        begun = time.monotonic()
        try:
            inputs = self._inputs(requests)
        except ValueError as error:
            if len(requests) > 1:
                return [answer for request in requests for answer in self._answers([request])]
            if not pictures(requests[0]):
                raise
            return [CellError("picture_refused", f"the model's processor does not take the picture: {error}")]
        assert self._chat is not None
        tokens: list[int] = inputs["attention_mask"].sum(dim=1).tolist()
        most = self._chat.positions
        if most is not None and max(tokens) + self._options.max_tokens > most:
            if len(requests) > 1:
                return [answer for request in requests for answer in self._answers([request])]
            message = f"{tokens[0]} tokens, and {self._options.max_tokens} to answer: the model holds {most}"
            return [CellError("too_long", message)]
        rows = self._generate(inputs, requests)
        seconds = (time.monotonic() - begun) / len(requests)
        return [self._answer(row, said, seconds) for row, said in zip(rows, tokens, strict=True)]

    def _inputs(self, requests: Sequence[Request]) -> Any:
        """What the model takes: input_ids (n, longest) padded on the left, attention_mask, the pictures' patches."""
        from jinja2 import TemplateError

        chat = self._chat
        assert chat is not None
        if not chat.sees and any(map(pictures, requests)):
            raise BadInput("the model reads no pictures", remedy="inputs without image, or a model that sees")
        chats = [_messages(request, self._options.max_pixels, chat.sees) for request in requests]
        how: dict[str, Any] = {"padding": True, "return_tensors": "pt"}
        if chat.sees:  # a processor takes what is for the tokenizer apart
            how = {"processor_kwargs": how}
        try:
            return chat.processor.apply_chat_template(
                chats, add_generation_prompt=True, tokenize=True, return_dict=True, **how
            ).to(chat.model.device)
        except TemplateError as error:
            raise BadInput(
                f"the model's chat template refuses the prompt: {error}",
                remedy="a prompt without a system part, or another model",
            ) from error

    def _generate(self, inputs: Any, requests: Sequence[Request]) -> list[list[int]]:
        """The tokens that follow each request, after an end token perhaps padding."""
        import torch

        chat, options = self._chat, self._options
        assert chat is not None
        penalty = {"repetition_penalty": options.repetition_penalty} if options.repetition_penalty else {}
        seeds = [request_seed(request, options.seed) for request in requests] if options.temperature else []
        with torch.inference_mode():
            made = chat.model.generate(
                **inputs,
                max_new_tokens=options.max_tokens,
                do_sample=False,  # where tokens are drawn, it is by a processor of logits, row by row
                logits_processor=draws(options.temperature, options.top_p, seeds),
                **penalty,
            )
        rows: list[list[int]] = made[:, inputs["input_ids"].shape[1] :].tolist()
        return rows

    def _answer(self, row: list[int], prompt_tokens: int, seconds: float) -> Answer:
        assert self._chat is not None
        end = next((place for place, token in enumerate(row) if token in self._chat.ends), None)
        said = row if end is None else row[: end + 1]
        text = self._chat.tokenizer.decode(said, skip_special_tokens=True)
        return Answer(text, "length" if end is None else "stop", prompt_tokens, len(said), seconds)


def load_chat(folder: Path, options: TransformersOptions, device: str) -> Chat:
    """The model in a folder, whole: raises ModelUnavailable where weights are missing; none are ever made up."""
    import torch

    config, model_class = _architecture(folder)
    processor = _processor(folder)
    spread: dict[str, Any] = {}
    if options.device_map == "auto":
        _accelerate()
        spread = {"device_map": "auto"}
    with no_bars(), loading(folder):
        model, loaded = model_class.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, _dtype(config, options)),
            attn_implementation=options.attention,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **spread,
        )
        lacking = sorted(loaded["missing_keys"]) + sorted(str(key) for key in loaded["mismatched_keys"])
        if lacking:
            raise ModelUnavailable(
                f"the model in {folder} lacks {len(lacking)} of its weights ({', '.join(lacking[:3])}), "
                "and random ones are never used",
                remedy="bring the whole folder, or choose another model",
            )
        model = model.eval() if spread else model.to(device).eval()
    chosen = model.generation_config  # the model's own, less what only drawing would use
    chosen.do_sample, chosen.temperature, chosen.top_p, chosen.top_k = False, None, None, None
    tokenizer = getattr(processor, "tokenizer", processor)
    return Chat(
        model=model,
        processor=processor,
        tokenizer=tokenizer,
        sees=processor is not tokenizer,
        ends=_ends(model, tokenizer),
        positions=getattr(config.get_text_config(), "max_position_embeddings", None),
    )


def _architecture(folder: Path) -> tuple[Any, Any]:
    """(config, class that loads it): a model that sees where the architecture has one, else a text model."""
    import transformers
    from transformers.models.auto import modeling_auto

    with loading(folder):
        config = transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    if type(config) in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return config, transformers.AutoModelForImageTextToText
    if type(config) in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING:
        return config, transformers.AutoModelForCausalLM
    raise ModelUnavailable(
        f"the model in {folder} ({config.model_type}) does not write texts",
        remedy="an image-text-to-text model, or a text-generation one",
    )


def _dtype(config: Any, options: TransformersOptions) -> str:
    """The number format that is asked for, or the saved one."""
    return _saved(config) if options.dtype == "auto" else options.dtype


def _saved(config: Any) -> str:
    return str(config.dtype or "float32").removeprefix("torch.")


def saved_dtype(folder: Path) -> str:
    """The number format of the weights in a folder, which are not read. Raises ModelUnavailable."""
    return _saved(_architecture(folder)[0])


def sees(folder: Path) -> bool:
    """Whether the model in a folder takes pictures; its weights are not read. Raises ModelUnavailable."""
    import transformers

    return _architecture(folder)[1] is transformers.AutoModelForImageTextToText


def _processor(folder: Path) -> Any:
    """Processor of a model that sees, tokenizer of one that does not; padding goes to the left."""
    import transformers

    with loading(folder):
        processor = transformers.AutoProcessor.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    tokenizer = getattr(processor, "tokenizer", processor)
    if processor.chat_template is None and tokenizer.chat_template is None:
        raise ModelUnavailable(
            f"the model in {folder} has no chat template, so it is not known how it is asked",
            remedy="an instruction-tuned model (its name often ends in -Instruct or -it)",
        )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    said = model.generation_config.eos_token_id
    found = said if isinstance(said, list) else [said]
    return frozenset(token for token in [*found, tokenizer.eos_token_id] if token is not None)


def _messages(request: Request, max_pixels: int, sees: bool) -> list[dict[str, Any]]:
    """A request as chat templates take it: a list of parts for a model that sees, one text for one that does not."""
    messages = []
    for turn in request.turns:
        content: Any = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
            for part in parts(turn, max_pixels)
        ]
        if not sees:
            content = "".join(part["text"] for part in content)
        messages.append({"role": turn.role, "content": content})
    return messages


def _length(request: Request, max_pixels: int) -> int:
    """About how many tokens a request has."""
    total = 0
    for turn in request.turns:
        for part in turn.parts:
            if isinstance(part, str):
                total += len(part) // TOKEN_CHARACTERS
            else:
                total += min(part.width * part.height, max_pixels) // TOKEN_PIXELS
    return total


def _accelerate() -> None:
    if find_spec("accelerate") is None:
        raise MissingExtra(
            'device_map = "auto" needs the package accelerate', remedy="pip install accelerate"
        )
