"""Everything that decides how a model is trained: one frozen, typed object with one comment a field.

A run keeps it resolved in `config.json`. Unknown names are refused with the nearest known one, since a
misspelt option that reads as its default would spoil a table in silence. What does not change the result
(device, threads) is not in here.
"""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from featurestore.errors import BadInput, did_you_mean

ID = "id"  # in `items`: the learned vector of an item
ONLY_FOR = {  # options that not every backbone has; set for another one they are refused
    "heads": ("sasrec", "bert4rec"),
    "inner": ("sasrec", "bert4rec"),
    "attention_dropout": ("sasrec", "bert4rec"),
    "causal": ("sasrec",),
    "hidden": ("gru4rec",),
    "mask_share": ("bert4rec",),
    "mask_last": ("bert4rec",),
}
ONLY_IN = {  # the same of towers
    "views": ("dmesr",),
    "across": ("llm-esr", "dmesr"),
    "view_heads": ("llm-esr", "dmesr"),
    "across_residual": ("llm-esr", "dmesr"),
    "view_residual": ("dmesr",),
    "view_norm": ("dmesr",),
    "attend": ("dmesr",),
    "pooling": ("dmesr",),
    "token_dropout": ("dmesr",),
    "align": ("dmesr",),
    "align_weight": ("dmesr",),
    "align_temperature": ("dmesr",),
    "align_learned": ("dmesr",),
    "align_items": ("dmesr",),
    "distill_weight": ("llm-esr",),
    "distill_users": ("llm-esr",),
}

OF_ADAPTERS = ("adapter", "scaling", "scaling_dim", "feature_scale", "feature_dropout", "lr_features")
OF_IDS_BESIDE_FEATURES = ("id_dropout", "gate")
SOFT_TEMPERATURE = 1.0  # where nobody gives one: the target of soft alignment is flat at low ones
STORED = "stored"
OF_ALIGNMENT = ("align_weight", "align_temperature", "align_learned", "align_items")


def told(error: ValidationError) -> str:
    """All that is wrong with some options, on one line."""
    lines = []
    for part in error.errors():
        where = ".".join(str(step) for step in part["loc"])  # none: it is about several
        says = part["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {says}" if where else says)
    return "; ".join(lines)


class Config(BaseModel):
    """How to train one recommender.

    `Config.of(width=128)`; `Config.model_fields` has name, default and meaning of each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # the model
    backbone: Literal["sasrec", "gru4rec", "bert4rec"] = Field("sasrec", description="sequence model")
    items: str = Field(
        "id", description="what an item is: id, a feature's name, or several joined by + (id+text+image)"
    )
    width: int = Field(64, ge=1, description="size of item and user vectors")
    layers: int = Field(2, ge=1, description="layers of the backbone")
    heads: int = Field(2, ge=1, description="sasrec, bert4rec: attention heads; must divide width")
    inner: int | None = Field(
        None,
        ge=1,
        description="sasrec, bert4rec: width of the feed-forward part; none: width, in bert4rec 4 x width",
    )
    hidden: int | None = Field(
        None, ge=1, description="gru4rec: width of the recurrent layers; none: the same as width"
    )
    length: int = Field(
        200, ge=1, description="latest events of a user that the model sees; in bert4rec the mask is one"
    )
    dropout: float = Field(
        0.2, ge=0, lt=1, description="share of values dropped after the input and after each part"
    )
    attention_dropout: float = Field(
        0.0, ge=0, lt=1, description="sasrec, bert4rec: share of attention weights dropped; slow on a CPU"
    )
    causal: bool = Field(
        True, description="sasrec: each event sees only earlier ones; false as in some published code"
    )
    tower: Literal["sum", "init", "concat", "llm-esr", "dmesr"] = Field(
        "sum",
        description="what id and features become: their sum, an id begun as their PCA, both side by side, or two views",
    )
    cosine: bool = Field(False, description="score by cosine / temperature instead of by dot product")
    temperature: float = Field(0.07, gt=0, description="used with cosine only")

    # items from stored features
    adapter: Literal["linear", "bottleneck", "mlp", "moe"] = Field(
        "mlp",
        description="from a stored vector to width: linear, two linear maps, GELU + LayerNorm, or UniSRec's experts",
    )
    scaling: Literal["none", "standard", "whiten"] = Field(
        "whiten",
        description="of stored vectors: as they are, unit variance a dimension, or decorrelated",
    )
    scaling_dim: int = Field(128, ge=1, description="with whiten, keep so many leading directions")
    feature_scale: float = Field(
        0.1, gt=0, description="first value of the learned scale on the feature side"
    )
    feature_dropout: float = Field(0.0, ge=0, lt=1, description="share of values dropped inside the adapter")
    id_dropout: float = Field(
        0.1, ge=0, lt=1, description="share of items that lose their id in a step, so that new items work"
    )
    id_init: Literal["normal", "pca"] | None = Field(
        None,
        description="first id vectors: random, or PCA of the features; none: pca in llm-esr, else random",
    )
    gate: Literal["none", "count"] = Field(
        "none", description="count: shrink the id of items that training saw rarely"
    )

    # two views of an item: tower llm-esr, tower dmesr
    views: Literal["concat", "sum"] = Field(
        "concat", description="dmesr: one backbone over both views, side by side; or over their sum"
    )
    across: bool | None = Field(
        None, description="attention between the two views' sequences; none: in llm-esr only"
    )
    view_heads: int = Field(
        2, ge=1, description="heads of the attention between views; must divide a view's width"
    )
    across_residual: bool = Field(
        False, description="add a view's own sequence to what the attention across sequences finds"
    )
    view_residual: bool = Field(
        True, description="dmesr: add a token to what its attention to the other side finds"
    )
    view_norm: bool = Field(True, description="dmesr: normalise views")
    attend: Literal["both", "coarse", "fine", "none"] = Field(
        "both",
        description="dmesr: which side's tokens attend to the other's; none: the views are pooled apart",
    )
    pooling: Literal["mean", "gated"] = Field(
        "mean", description="dmesr: how a side's tokens become one view"
    )
    token_dropout: float = Field(0.0, ge=0, lt=1, description="dmesr: share of tokens hidden in a step")
    align: Literal["infonce", "soft", "none"] = Field(
        "infonce", description="dmesr: contrastive loss between an item's coarse views"
    )
    align_weight: float = Field(
        0.1, ge=0, description="dmesr: how much it counts beside the loss of recommending"
    )
    align_temperature: float = Field(
        0.2, ge=0.01, le=1, description="dmesr: first temperature of that loss; with soft, 1 unless given"
    )
    align_learned: bool = Field(False, description="dmesr: learn that temperature")
    align_items: int = Field(
        512, ge=2, description="dmesr: at most so many different items of a batch are aligned"
    )
    distill_weight: float = Field(
        0.1, ge=0, description="llm-esr: how much agreement with similar users counts beside the loss"
    )
    distill_users: int = Field(10, ge=1, description="llm-esr: similar users that teach a user")

    # what is learnt
    mask_share: float = Field(
        0.2, gt=0, lt=1, description="bert4rec: share of a window's events that are hidden and to be found"
    )
    mask_last: Literal["copy", "always", "chance"] = Field(
        "copy",
        description="bert4rec: last event of a window: hidden in a copy of it, hidden always, or as any other",
    )
    loss: Literal["softmax", "sampled_softmax", "bce", "gbce"] = Field(
        "softmax", description="softmax is over all items"
    )
    negatives: int = Field(256, ge=1, description="sampled items a step (softmax needs none)")
    share_negatives: bool = Field(
        True, description="one sample for the whole batch; false: one for every event"
    )
    negative_power: float = Field(0.0, ge=0, description="sample items by count to this power; 0 is uniform")
    logq: bool = Field(
        True, description="sampled softmax: correct for how likely each item was to be sampled"
    )
    calibration: float = Field(0.75, ge=0, le=1, description="gbce: 0 is plain bce, 1 fully calibrated")
    head: Literal["float32", "bfloat16"] = Field(
        "float32", description="type the softmax over all items is computed in"
    )

    # how it is fitted
    batch: int = Field(128, ge=1, description="users a step")
    windows: Literal["last", "random"] = Field(
        "last", description="part of a long history an epoch learns from"
    )
    epochs: int = Field(200, ge=1, description="at most so many")
    patience: int = Field(10, ge=1, description="validations without a new best after which to stop")
    eval_every: int = Field(1, ge=1, description="epochs between validations")
    lr: float = Field(1e-3, gt=0, description="learning rate of AdamW")
    lr_ids: float | None = Field(None, gt=0, description="of the id table; none: lr")
    lr_features: float | None = Field(None, gt=0, description="of the adapters; none: lr")
    betas: tuple[float, float] = Field((0.9, 0.98), description="of AdamW")
    weight_decay: float = Field(0.0, ge=0, description="on matrices of backbone and adapters")
    weight_decay_ids: float = Field(0.0, ge=0, description="on the id table")
    warmup: int = Field(0, ge=0, description="steps over which the learning rate rises")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="of the learning rate, over all epochs"
    )
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient; none: any")
    average: float = Field(
        0.0, ge=0, lt=1, description="keep a moving average of the weights and validate that; 0: off"
    )
    seed: int = Field(0, ge=0, description="of every random choice")

    # what it is fitted on
    split: Literal["leave-one-out", "global-time"] = Field("leave-one-out", description="what is held out")
    hide_items: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the items that training never sees, to measure how new items are recommended",
    )
    hide_seed: int = Field(0, ge=0, description="which items those are")
    repeat: Literal["mask", "allow"] = Field(
        "mask", description="items a user took before: out of validation's ranking, or in it"
    )
    k_core: tuple[int, int] | None = Field(
        None, description="least events a user and an item must have, iterated"
    )

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for name in given:
                if name not in cls.model_fields:
                    raise BadInput(
                        f"unknown training option '{name}'", remedy=did_you_mean(str(name), cls.model_fields)
                    )
            of_soft = {"align_temperature": SOFT_TEMPERATURE} if given.get("align") == "soft" else {}
            given = of_soft | given
            return {name: None if cls._is_none(name, value) else value for name, value in given.items()}
        return given

    @classmethod
    def _is_none(cls, name: str, value: Any) -> bool:
        """The word none, where an option can be None: TOML and command lines have no other word for it."""
        return value == "none" and type(None) in get_args(cls.model_fields[name].annotation)

    @model_validator(mode="after")
    def _fit_together(self, info: ValidationInfo) -> Config:
        for name, having in ONLY_FOR.items():
            left_alone = getattr(self, name) == type(self).model_fields[name].default
            if self.backbone not in having and not left_alone:
                raise ValueError(f"{name} is an option of {' and '.join(having)}, not of {self.backbone}")
        if self.backbone == "bert4rec" and self.length < 2:
            raise ValueError("length must be at least 2 in bert4rec, whose mask takes one place")
        if self.backbone in ONLY_FOR["heads"] and self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be shared by {self.heads} heads")
        for name, towers in ONLY_IN.items():
            if self.tower not in towers and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is an option of tower {' and '.join(towers)}, not of {self.tower}")
        parts = self.parts
        if not all(parts) or len(set(parts)) < len(parts):
            raise ValueError(f"items '{self.items}' must name different things joined by +, such as id+text")
        if self.id_init == "pca" and (ID not in parts or not self.features):
            raise ValueError(f"id_init 'pca' needs both id and a feature in items, got '{self.items}'")
        self._towers_fit()
        if not (info.context or {}).get(STORED):
            self._all_are_read()
        if not (0 <= self.betas[0] < 1 and 0 <= self.betas[1] < 1):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}")
        return self

    def _towers_fit(self) -> None:
        if self.tower != "sum" and not self.features:
            raise ValueError(
                f"tower {self.tower} reads features: items = id+text, for instance, not '{self.items}'"
            )
        if self.tower in ("init", "llm-esr") and ID not in self.parts:
            raise ValueError(f"tower {self.tower} has ids: write items = id+{self.items}")
        halves = self.parallel or (self.tower == "concat" and ID in self.parts)
        if halves and self.width % 2:
            raise ValueError(f"tower {self.tower} halves the width, and {self.width} is odd")
        if self.tower in ONLY_IN["view_heads"] and self.view_width % self.view_heads:
            raise ValueError(
                f"views of width {self.view_width} cannot be shared by {self.view_heads} view_heads"
            )
        if self.parallel and self.backbone in ONLY_FOR["heads"] and self.view_width % self.heads:
            raise ValueError(f"views of width {self.view_width} cannot be shared by {self.heads} heads")
        if self.across and not self.parallel:
            raise ValueError("across needs two sequences: views = concat")

    def _all_are_read(self) -> None:
        """Refuse what is set and would change nothing."""
        adapted = bool(self.features) and self.tower != "init"
        sampled = self.loss != "softmax"
        dual = self.tower == "dmesr"
        aligned = dual and self.align != "none" and self.align_weight > 0
        between_tokens = dual and self.attend != "none"
        read_by = [
            (adapted, "features, in a tower other than init", OF_ADAPTERS),
            (
                adapted and ID in self.parts,
                "ids beside features, in a tower other than init",
                OF_IDS_BESIDE_FEATURES,
            ),
            (ID in self.parts, "items with id", ("lr_ids", "weight_decay_ids")),
            (self.align != "none" or not dual, "align", OF_ALIGNMENT),
            (
                aligned or not dual or self.align == "none",
                "an align_weight above 0",
                ("align", *OF_ALIGNMENT[1:]),
            ),
            (self.tower != "init", "a tower other than init", ("id_init",)),
            (between_tokens or self.adapter != "linear", "an adapter with an inside", ("feature_dropout",)),
            (between_tokens or not dual, "attend", ("view_residual",)),
            (between_tokens or self.attends_across, "attention between views", ("view_heads",)),
            (self.attends_across, "across", ("across_residual",)),
            (self.distill_weight > 0, "a distill_weight above 0", ("distill_users",)),
            (self.scaling == "whiten" or not adapted, "scaling whiten", ("scaling_dim",)),
            (self.cosine, "cosine", ("temperature",)),
            (not sampled, "loss softmax", ("head",)),
            (sampled, "a sampled loss", ("negatives", "share_negatives", "negative_power")),
            (self.loss == "sampled_softmax", "loss sampled_softmax", ("logq",)),
            (self.loss == "gbce", "loss gbce", ("calibration",)),
            (self.hide_items > 0, "hide_items", ("hide_seed",)),
        ]
        unread: dict[str, str] = {}
        for is_read, what, names in read_by:
            if not is_read:
                unread |= {name: what for name in names if name not in unread}
        for name, what in unread.items():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} would change nothing here: it is an option of {what}")

    @classmethod
    def of(cls, **given: Any) -> Config:
        """The same as the constructor, with every refusal as one BadInput that names the option."""
        try:
            return cls(**given)
        except ValidationError as error:
            raise BadInput(
                f"training options: {told(error)}", remedy="see `dualview train --options`"
            ) from None

    @classmethod
    def stored(cls, given: dict[str, Any]) -> Config:
        """What a run was trained with. An option that changed nothing is let be: it was once accepted."""
        try:
            return cls.model_validate(given, context={STORED: True})
        except ValidationError as error:
            raise BadInput(f"options of a run: {told(error)}") from None

    @property
    def parts(self) -> tuple[str, ...]:
        """What `items` names, in order."""
        return tuple(part.strip() for part in self.items.split("+"))

    @property
    def features(self) -> tuple[str, ...]:
        """The stored features that `items` names."""
        return tuple(part for part in self.parts if part != ID)

    @property
    def parallel(self) -> bool:
        """Whether an item's vector is two views side by side, each a sequence of its own."""
        return self.tower == "llm-esr" or (self.tower == "dmesr" and self.views == "concat")

    @property
    def attends_across(self) -> bool:
        """Whether two views' sequences attend to each other."""
        return self.tower == "llm-esr" if self.across is None else self.across

    @property
    def view_width(self) -> int:
        """Width of what a backbone reads: of one view, or of an item."""
        return self.width // 2 if self.parallel else self.width

    @property
    def slug(self) -> str:
        """What runs of this kind are called: `sasrec-id-text`."""
        return re.sub(
            r"[^a-z0-9_.]+",
            "-",
            "-".join((self.backbone, *(() if self.tower == "sum" else (self.tower,)), *self.parts)).lower(),
        ).strip("-")
