"""A sentence encoder of all-MiniLM-L6-v2's shape with random weights: right for measuring speed, for nothing else."""

from __future__ import annotations

from pathlib import Path

WORDS = [
    "the",
    "a",
    "of",
    "and",
    "with",
    "for",
    "in",
    "on",
    "red",
    "blue",
    "green",
    "small",
    "large",
    "soft",
    "light",
    "dark",
    "steel",
    "wood",
    "glass",
    "cup",
    "lamp",
    "bag",
    "chair",
    "shoe",
]


def minilm_shape(folder: Path) -> Path:
    """Save a 6-layer, 384-wide BERT with mean pooling as a sentence-transformers folder; returns `folder`."""
    import string

    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    letters = list(string.ascii_lowercase + string.digits + ".,!?'-")
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        *letters,
        *[f"##{c}" for c in letters],
    ]
    raw = folder / "transformer"
    raw.mkdir(parents=True)
    (raw / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n")
    BertTokenizerFast(vocab=str(raw / "vocab.txt")).save_pretrained(raw)
    size = len(dict.fromkeys(vocabulary))
    BertModel(
        BertConfig(
            vocab_size=size,
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1536,
        )
    ).save_pretrained(raw)
    encoder = Transformer(str(raw), max_seq_length=256)
    SentenceTransformer(modules=[encoder, Pooling(384, "mean"), Normalize()]).save(str(folder / "model"))
    return folder / "model"
