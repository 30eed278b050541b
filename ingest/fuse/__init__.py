"""Alignment and fusion: the modules that make one item of its stored vectors. Torch and numpy only; nothing here is
fitted, reads a store or writes one.

| file | holds |
|---|---|
| `stored` | stored vectors over a list of items: one an item (`Vectors`) or several (`Tokens`) |
| `scaling` | statistics of the catalogue that a stored vector is scaled by |
| `adapters` | from a stored vector to the width of a model |
| `align` | contrastive losses between views, and how well views agree |
| `attention` | attention between two sets of tokens, either way |
| `dual` | the dual view: coarse and fine tokens in, two fused views out |
"""
