"""Texts that a model writes about an item: prompts, the describers that answer them, and what is kept of an answer.

Importing this fills the register of describers and loads no library.
"""

from ingest.describe import ocr, openai_api, template, transformers_vlm

__all__ = ["ocr", "openai_api", "template", "transformers_vlm"]
