"""Fills the store: readers, validation, pictures, encoders, and `materialize`, which computes what is not current."""
