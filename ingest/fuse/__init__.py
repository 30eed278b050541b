"""Alignment and fusion: the modules that make one item of its stored vectors. No weights are trained here, and
nothing is written; `recipes` and `reading` alone know a store, and need no torch.

| file | holds |
|---|---|
| `stored` | stored vectors over a list of items: one an item (`Vectors`) or several (`Tokens`) |
| `scaling` | statistics of the catalogue that a stored vector is scaled by |
| `adapters` | from a stored vector to the width of a model |
| `align` | contrastive losses between views, and how well views agree |
| `attention` | attention between two sets of tokens, either way |
| `dual` | the dual view: coarse and fine tokens in, two fused views out |
| `apply` | fitted weights of a dual view as an artifact, and what they make of an item's vectors |
| `recipes` | the recipe of a feature of kind `fuse`, by the fit that stands |
| `reading` | stored vectors of some items, from the tables of several features |
"""
