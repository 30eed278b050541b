"""Learns from the store and answers: sequences, models, the one trainer, evaluation and retrieval."""
