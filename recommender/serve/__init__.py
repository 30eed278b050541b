"""Retrieval over HTTP: what `dualview serve` runs. See docs/serve.md.

settings  what may be asked, and by whom          errors   every refusal as one kind of JSON
snapshot  one release, opened to answer           service  which snapshot answers now; swapped without a gap
pool      threads that work, and how many wait    batch    searches that wait together are one search
cards     catalogue rows as JSON                  why      which of a history lie near a recommendation
guard     what every request passes first         meters   what Prometheus reads
columns   what a filter and a map can name        projection  a feature's vectors in two dimensions
page/     the explorer, see docs/explorer.md
schema    requests and answers, for OpenAPI       routes/  one file a subject          app  all of it together
"""
