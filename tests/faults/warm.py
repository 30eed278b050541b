"""What every child of these tests imports, loaded once in the process that they are forked from.

Lance and lancedb are left out: each starts threads of its own, and a fork copies none of them.
"""

# ruff: noqa: F401

import duckdb
import faiss
import lance_namespace_urllib3_client.api
import numpy
import pandas
import PIL.Image
import PIL.PngImagePlugin
import pyarrow.compute
import pyarrow.csv
import pyarrow.dataset
import pytest
import sklearn.decomposition
import sklearn.feature_extraction.text
import sqlglot
import torch

import dualview.store
import dualview.training
import featurestore.index
import featurestore.interactions
import featurestore.publish
import featurestore.search
import featurestore.status
import ingest.encode.color_texture
import ingest.encode.tfidf
import ingest.load
import ingest.materialize
import recommender.fit
import tests.faults.scenario
