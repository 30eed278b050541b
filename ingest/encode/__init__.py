"""Encoders: texts and pictures to vectors. Importing this fills the register and loads no library."""

from ingest.encode import clip, color_texture, dmesr, sentence, tfidf, timm_image, tokens

__all__ = ["clip", "color_texture", "dmesr", "sentence", "tfidf", "timm_image", "tokens"]
