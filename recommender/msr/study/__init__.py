"""A study of kind "msr": fine-tuned models, zero-shot, ablations and sequential models on the same candidates.

grid      its cells, and the options that decide each
reading   from study.toml to the grid, every table checked
work      what is done for one cell
report    tables and tests from the records alone

Cells are claimed, run, resumed and judged as those of any study (`recommender.study`).
"""
