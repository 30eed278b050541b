"""Texts that a model writes about an item: prompts, the describers that answer them, and what is kept of an answer."""
