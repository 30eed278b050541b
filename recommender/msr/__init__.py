"""MLLM-MSR: a language model that reads a user's preference and an item, and answers yes or no.

examples   what it is asked: a preference, a candidate, a label; and how an item of a release becomes a candidate
config     how it is fine-tuned: presets `paper` and `code`
prompt     the one prompt of training and of ranking, and the length budget
lora, sft  adapters on the language part, trained by the one trainer; a run of kind "msr"
ranker     p(yes) / (p(yes) + p(no)) of many candidates of one user, from one forward pass each
cache      the keys and values of the user's part, computed once for all candidates
pairs      which events are learnt from and asked about, beside which items (`candidates`); kept with a run
material   pairs as examples: each with its user's preference as of just before
evaluate   scorers side by side on the same pairs (`scorers`, `figures`); `asking` opens runs of a store for it
rerank     a user's retrieved candidates in the model's order
study      arms, floors and sequential models on the same candidates, cell by cell
"""
