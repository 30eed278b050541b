"""How a yes/no model is fine-tuned: one frozen, typed object with one comment a field, and two presets.

What does not change the result (device, how many candidates are scored at once) is not in here; which pairs are
learnt from is `pairs.PairOptions`.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from featurestore.errors import BadInput, did_you_mean
from recommender.config import told

HISTORY = "history"  # in `preference`: the latest titles, written by no model
MAX_PIXELS = 1_003_520  # 1,280 patches of 28 x 28 pixels

PRESETS: dict[str, dict[str, Any]] = {
    # the paper's table; alpha and dropout are not in it: twice the rank, and none, are ours
    "paper": {"rank": 8, "alpha": 16, "dropout": 0.0, "epochs": 10, "accumulate": 8, "length": 512},
    # the published code's; its rate and optimiser are the paper's
    "code": {"rank": 16, "alpha": 32, "dropout": 0.1, "epochs": 4, "accumulate": 4, "length": 1024},
}


class MsrConfig(BaseModel):
    """How to fine-tune one model. `MsrConfig.of(preset="paper", model=FOLDER)`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # the question
    model: str = Field(description="an image-text-to-text or a text-generation model: hub id or folder")
    preference: str = Field(
        HISTORY, description="what stands for a user: history (the latest titles), or a kept preference"
    )
    history: int = Field(20, ge=1, description="titles of a preference that is a history")
    text: str = Field("title", description="column or feature of texts that names a candidate")
    summary: str | None = Field(
        None, description="feature of texts that describes a candidate; none: nothing"
    )
    image: bool | None = Field(None, description="show a candidate's picture; unset: if the model sees")
    answers: tuple[str, str] = Field(
        ("yes", "no"), description="the two answers; each must be one token after the prompt"
    )
    length: int = Field(
        1024, ge=16, description="tokens of a prompt with its answer; only the preference is shortened to fit"
    )
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=28 * 28,
        description="a larger picture is shrunk in proportion before the model sees it",
    )

    # the adapters
    rank: int = Field(16, ge=1, description="of the low-rank matrices")
    alpha: float = Field(32, gt=0, description="their product counts alpha / rank times")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of an adapter's inputs dropped")
    targets: Literal["linear", "attention"] = Field(
        "linear", description="layers of the language part that get one: all linear ones, or attention's"
    )

    # how they are fitted
    loss_on: Literal["answer", "all"] = Field(
        "answer",
        description="the answer's token, or every token of prompt and answer, pictures' places left out",
    )
    batch: int = Field(1, ge=1, description="examples in memory at once")
    accumulate: int = Field(4, ge=1, description="batches a step")
    epochs: int = Field(4, ge=1, description="at most so many")
    patience: int | None = Field(
        None, ge=1, description="validations without a new best after which to stop; none: never"
    )
    eval_every: int = Field(1, ge=1, description="epochs between validations")
    save_every: int = Field(200, ge=1, description="batches between checkpoints inside an epoch")
    lr: float = Field(2e-5, gt=0, description="learning rate of AdamW")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    warmup: int = Field(0, ge=0, description="steps over which the learning rate rises")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="of the learning rate, over all epochs"
    )
    clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient; none: any")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of weights and arithmetic; auto: as saved, but bfloat16 for float16. Adapters are float32",
    )
    checkpointing: bool = Field(
        True, description="compute layers anew on the way back instead of keeping what is between them"
    )
    seed: int = Field(0, ge=0, description="of every random choice")

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for name in given:
            if name not in cls.model_fields:
                raise BadInput(
                    f"unknown fine-tuning option '{name}'", remedy=did_you_mean(str(name), cls.model_fields)
                )
        nullable = (
            "summary",
            "image",
            "patience",
            "clip",
        )  # TOML and command lines have no other word for it
        return {k: None if k in nullable and v == "none" else v for k, v in given.items()}

    @model_validator(mode="after")
    def _fit_together(self) -> MsrConfig:
        if self.preference != HISTORY and self.history != type(self).model_fields["history"].default:
            raise ValueError("history is an option of preference = history")
        if self.answers[0] == self.answers[1]:
            raise ValueError(f"the two answers are the same: {self.answers[0]!r}")
        return self

    @classmethod
    def of(cls, preset: str | None = None, **given: Any) -> MsrConfig:
        """The options of a preset, with `given` in their place where given. Raises BadInput that names the option."""
        if preset is not None and preset not in PRESETS:
            raise BadInput(f"unknown preset '{preset}'", remedy=did_you_mean(preset, PRESETS))
        try:
            return cls(**((PRESETS[preset] if preset else {}) | given))
        except ValidationError as error:
            raise BadInput(
                f"fine-tuning options: {told(error)}", remedy="see `dualview msr train --options`"
            ) from None

    @property
    def features(self) -> tuple[str, ...]:
        """The stored features that candidates may be told by; the first may be a column instead."""
        return (self.text, self.summary) if self.summary else (self.text,)

    @property
    def items(self) -> str:
        """What an item is to the model, in a word."""
        seen = () if self.image is False else ("picture",)
        return "+".join((*self.features, *seen))

    @property
    def slug(self) -> str:
        """What runs of this kind are called: `msr-smollm2-135m-instruct`."""
        return "msr-" + re.sub(r"[^a-z0-9_.]+", "-", PurePath(self.model).name.lower()).strip("-")
