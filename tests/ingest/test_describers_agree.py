"""One model, reached in two ways, answers alike: in this process, and behind a real `transformers serve`.

The server takes blanks off both ends of what a model of the Qwen family writes, which is why they are taken off here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from ingest.describe.base import Answer, Request, Turn
from ingest.describe.openai_api import OpenAIDescriber, OpenAIOptions
from tests.ingest import tiny_vlms
from tests.ingest.test_describer_transformers import PICTURES, answers, describer, requests

STARTING = 120.0  # seconds the server may take on a busy machine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that loads whichever folder a request names as its model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        until = time.monotonic() + STARTING
        while not _healthy(port):
            assert process.poll() is None, f"the server ended:\n{log.read_text()}"
            assert time.monotonic() < until, f"the server did not start:\n{log.read_text()}"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait(20)


def _healthy(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False


def served(url: str, folder: Path, asked: list[Request], **given: object) -> list[Answer]:
    options = OpenAIOptions.model_validate(
        {"prompt": "p", "max_tokens": 12, "base_url": url, "api_key_env": "NO_KEY"} | given
    )
    model = OpenAIDescriber(str(folder), options)
    try:
        found = dict(model.describe(asked))
    finally:
        model.close()
    assert all(isinstance(answer, Answer) for answer in found.values()), found
    return [found[place] for place in sorted(found)]  # type: ignore[misc]


def texts(found: list[Answer]) -> list[str]:
    return [answer.text.strip() for answer in found]


@pytest.mark.parametrize("kind", tiny_vlms.KINDS)
def test_a_model_that_sees_answers_alike_in_this_process_and_behind_a_server(kind: str, server: str) -> None:
    folder, asked = tiny_vlms.vlm(kind), requests()
    here, there = answers(describer(folder, batch=8), asked), served(server, folder, asked)
    assert texts(here) == texts(there)
    assert [a.prompt_tokens for a in here] == [a.prompt_tokens for a in there]
    assert [(a.finish, a.completion_tokens) for a in there] == [(a.finish, a.completion_tokens) for a in here]
    assert len({a.text for a in there}) == len(asked)


def test_a_text_model_answers_alike_in_this_process_and_behind_a_server(server: str) -> None:
    asked = requests(sees=False)
    here = answers(describer(tiny_vlms.llm(), batch=8), asked)
    assert texts(here) == texts(served(server, tiny_vlms.llm(), asked))


def test_a_picture_over_the_budget_is_seen_alike_in_this_process_and_behind_a_server(server: str) -> None:
    folder = tiny_vlms.vlm("qwen2_5_vl")
    asked = [Request("i", (Turn("user", (picture, "a shoe")),)) for picture in PICTURES]
    here = answers(describer(folder, batch=8, max_pixels=2_000), asked)
    there = served(server, folder, asked, max_pixels=2_000)
    assert texts(here) == texts(there)
    assert texts(here) != texts(answers(describer(folder, batch=8), asked))
