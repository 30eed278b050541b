"""A study: a grid of data sets x backbones x towers x seeds, trained and evaluated cell by cell, and read back.

    study = Study.read("study.toml")
    study.cells()      # every cell with its resolved options
    results(study)     # the records of those that are done

`runner.run` fills it; `report` reads it. Reading a study imports no torch.
"""

from recommender.study.grid import Cell, Study
from recommender.study.records import results

__all__ = ["Cell", "Study", "results"]
