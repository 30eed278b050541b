from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from featurestore.errors import BadInput, Conflict
from recommender import checkpoint
from recommender.msr import lora, models, sft
from recommender.msr.config import MsrConfig
from recommender.msr.ranker import Ranker
from recommender.runs import MSR, Run, list_runs, open_run, promote
from tests.recommender import asking

FAST = {
    "rank": 4,
    "alpha": 8,
    "dropout": 0.1,
    "lr": 5e-3,
    "batch": 2,
    "accumulate": 2,
    "epochs": 2,
    "length": 400,
}


def config(kind: str, **given: Any) -> MsrConfig:
    return asking.config(kind, **FAST | given)


def objective(kind: str, **given: Any) -> sft.Answering:
    """With adapters that already change something."""
    found = asking.loaded(kind, **FAST | {"dropout": 0.0} | given)
    torch.manual_seed(0)
    for weight in lora.add(found.model, rank=4, alpha=8, dropout=0.0):
        torch.nn.init.normal_(weight, std=0.05)
    return sft.Answering(found.model, found.prompt, found.config).train()


def asked(made: sft.Answering, n: int, start: int = 0) -> Any:
    told = asking.examples(start + n, pictures=made.prompt.chat.sees)[start:]
    return sft.Questions(told, made.prompt).to(torch.device("cpu"))


def gradients(made: sft.Answering) -> list[torch.Tensor]:
    return [weight.grad.clone() for weight in lora.weights(made.model)]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["llm", "qwen2_5_vl", "llava_next", "gemma3"])
def test_training_changes_adapters_of_the_language_part_and_not_one_bit_else(
    kind: str, tmp_path: Path
) -> None:
    found = asking.loaded(kind, **FAST)
    before = {name: weight.clone() for name, weight in found.model.state_dict().items()}
    lora.add(found.model, rank=4, alpha=8, dropout=0.1)
    told = asking.examples(8, pictures=kind != "llm")
    trainer = sft.trainer_of(found, config(kind, epochs=1), told, (), tmp_path)
    trainer.run(lambda at, row: None)
    after = {name.replace(".base_layer.", "."): w for name, w in found.model.state_dict().items()}
    adapters = {name for name in after if ".lora_" in name}
    assert after.keys() - adapters == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert any(bool(after[name].abs().sum()) for name in adapters if ".lora_B" in name)
    paths = {name.partition(".lora_")[0] for name in adapters}
    assert not [path for path in paths if "vision" in path or "visual" in path or "projector" in path]
    assert len(paths) == len(lora.language_layers(asking.loaded(kind).model)) == 14


def test_a_tower_inside_what_a_model_calls_its_decoder_does_not_train(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = asking.loaded("llava_next")
    monkeypatch.setattr(type(found.model), "get_decoder", lambda self: self.model)
    made = sft.Answering(found.model, found.prompt, found.config).train()
    inside = {name.split(".")[1]: each.training for name, each in found.model.named_modules() if "." in name}
    assert (inside["vision_tower"], inside["language_model"]) == (False, True)
    made.eval()
    assert not any(each.training for each in made.modules())
    assert not any("vision" in name for name in lora.language_layers(found.model))


def test_attention_alone_can_be_adapted() -> None:
    names = lora.language_layers(asking.loaded("qwen2_5_vl").model, "attention")
    assert {name.rsplit(".", 1)[-1] for name in names} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_the_loss_is_of_the_answer_alone_or_of_every_token() -> None:
    one, all_ = objective("qwen2_5_vl"), objective("qwen2_5_vl", loss_on="all")
    batch, answers = asked(one, 3)
    assert batch.inputs["attention_mask"].sum(dim=1).unique().numel() > 1, "of unequal length"
    answer_losses, token_losses = [], []
    for row in range(3):
        (single, answer) = asked(one, 1, start=row)
        ids = single.inputs["input_ids"][0]
        with torch.no_grad():
            log = one.model(**single.inputs).logits[0].log_softmax(-1)
        answer_losses.append(-log[-1, answer[0]])
        each = [
            -log[k, ids[k + 1]] for k in range(len(ids) - 1) if int(ids[k + 1]) not in one.prompt.image_tokens
        ]
        token_losses.append(torch.stack([*each, -log[-1, answer[0]]]).mean())
    for made, expected in ((one, answer_losses), (all_, token_losses)):
        terms = made((batch, answers))
        torch.testing.assert_close(terms["loss"], torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)
    assert 0 <= float(terms["right"]) <= 1


@pytest.mark.parametrize("loss_on", ["answer", "all"])
def test_examples_count_alike_however_they_are_batched(loss_on: str) -> None:
    together, apart = objective("llm", loss_on=loss_on), objective("llm", loss_on=loss_on)
    together(asked(together, 4))["loss"].backward()
    for row in range(4):
        (apart(asked(apart, 1, start=row))["loss"] / 4).backward()
    for one, other in zip(gradients(together), gradients(apart), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_layers_computed_anew_on_the_way_back_give_the_same_gradients() -> None:
    found = []
    for checkpointing in (True, False):
        made = objective("qwen2_5_vl", checkpointing=checkpointing)
        made(asked(made, 2))["loss"].backward()
        found.append(gradients(made))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_a_model_in_bfloat16_learns_with_adapters_in_float32(tmp_path: Path) -> None:
    options = config("qwen2_5_vl", dtype="bfloat16", epochs=1)
    run = sft.train(tmp_path, options, asking.examples(8), device="cpu")
    saved = load_file(run.folder / "adapter" / lora.WEIGHTS)
    assert {value.dtype for value in saved.values()} == {torch.float32}
    found = Ranker.open(run, device="cpu")
    assert found.model.dtype == torch.bfloat16
    assert np.isfinite(found.score("red shoe", asking.candidates(4))).all()


def test_a_model_saved_in_float16_is_taken_in_bfloat16(tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(asking.folder("llm"), folder)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"dtype": "float16"}))
    assert models.load(folder, config("llm"), "cpu").model.dtype == torch.bfloat16


def test_it_learns_and_is_opened_again_with_its_adapters_or_without(tmp_path: Path) -> None:
    told = asking.examples(16, pictures=False)
    run = sft.train(
        tmp_path, config("llm", epochs=6, lr=2e-2), told, valid=told, device="cpu", release="0001"
    )
    assert run.kind == MSR
    assert run.metrics()["valid"]["auc"] > 0.95
    assert [row["epoch"] for row in run.history()] == list(range(1, run.metrics()["epochs"] + 1))
    rows = [Ranker.open(run, device="cpu", zero_shot=zero).score_examples(told) for zero in (False, True)]
    labels = np.array([example.label for example in told])
    assert rows[0][labels].min() > rows[0][~labels].max()
    bare = Ranker.open(asking.folder("llm"), config=run.options, device="cpu").score_examples(told)
    np.testing.assert_allclose(rows[1], bare, atol=1e-6)
    beside = Ranker.open(
        asking.folder("llm"), adapter=run.folder / "adapter", config=run.options, device="cpu"
    )
    np.testing.assert_allclose(beside.score_examples(told), rows[0], atol=1e-6)


def test_saved_adapters_are_read_by_peft_itself(tmp_path: Path) -> None:
    from peft import PeftModel

    run = sft.train(tmp_path, config("qwen2_5_vl", epochs=1), asking.examples(8), device="cpu")
    ours = Ranker.open(run, device="cpu")
    bare = asking.loaded("qwen2_5_vl", **FAST)
    theirs = PeftModel.from_pretrained(bare.model, run.folder / "adapter").eval()
    inputs = bare.prompt.encode("red shoe", asking.candidates(2)[1])
    with torch.inference_mode():
        torch.testing.assert_close(theirs(**inputs).logits, ours.model(**inputs).logits, rtol=1e-4, atol=1e-5)


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
import torch
from recommender.msr import sft
from recommender.msr.config import MsrConfig
from tests.recommender import asking

seen = 0

def beat(place, total):
    global seen
    seen += 1
    if seen == 9:
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
told = asking.examples(10)
options = MsrConfig.model_validate_json(sys.argv[1])
sft.train(Path(sys.argv[2]), options, told, valid=told[:6], folder=sys.argv[3], device="cpu", beat=beat)
"""


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Killed in the second epoch, between two checkpoints; there is dropout, 5 batches an epoch, 2 batches a step."""
    options, told = config("qwen2_5_vl", save_every=2), asking.examples(10)
    broken, whole = (tmp_path / name / "runs" / "msr-001" for name in ("broken", "whole"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = [options.model_dump_json(), str(tmp_path), str(broken)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], env=environment, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    _, stands = checkpoint.load(broken / "checkpoint" / checkpoint.LAST)
    assert (stands["epoch"], stands["place"]) == (1, 2)
    beats: list[int] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for folder in (broken, whole):
            sft.train(
                tmp_path,
                options,
                told,
                valid=told[:6],
                folder=folder,
                device="cpu",
                beat=lambda place, total: beats.append(place),
            )
    finally:
        torch.set_num_threads(threads)
    assert beats == [3, 4, 5, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5]
    for part in ("adapter/adapter_model.safetensors", "checkpoint/best.safetensors"):
        one, other = load_file(broken / part), load_file(whole / part)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    figures = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in Run(end).history()]
        for end in (broken, whole)
    ]
    assert figures[0] == figures[1]


def test_a_checkpoint_holds_adapters_and_no_weight_of_the_model(tmp_path: Path) -> None:
    run = sft.train(tmp_path, config("llm", epochs=1), asking.examples(8, pictures=False), device="cpu")
    for name in ("last", "best"):
        held = load_file(run.folder / "checkpoint" / f"{name}.safetensors")
        weights = [each for each in held if each.startswith(("objective.", "model."))]
        assert weights
        assert all(".lora_" in each for each in weights)


def test_a_run_goes_on_with_its_own_options_and_examples_only(tmp_path: Path) -> None:
    told = asking.examples(8, pictures=False)
    run = sft.train(tmp_path, config("llm", epochs=1), told, device="cpu")
    assert run.name == "msr-llm-001"
    again = {"folder": run.folder, "device": "cpu"}
    with pytest.raises(Conflict, match="rank was 4, is 8"):
        sft.train(tmp_path, config("llm", epochs=1, rank=8), told, **again)
    with pytest.raises(Conflict, match="other examples"):
        sft.train(tmp_path, config("llm", epochs=1), told[1:], **again)
    longer = sft.train(tmp_path, config("llm", epochs=2), told, **again)
    assert longer.metrics()["epochs"] == len(longer.history()) == 2


def test_examples_of_one_answer_are_refused(tmp_path: Path) -> None:
    told = [each for each in asking.examples(8, pictures=False) if each.label]
    with pytest.raises(BadInput, match="there is only 'yes'"):
        sft.train(tmp_path, config("llm"), told, device="cpu")
    assert not (tmp_path / "runs").exists()


def test_a_candidate_that_does_not_fit_is_told_before_training(tmp_path: Path) -> None:
    """One of validation too, and one with a picture though others have longer texts."""
    told = asking.examples(8)
    blind = [replace(each, candidate=replace(each.candidate, picture=None)) for each in told]
    pictures = replace(asking.picture(1), read=asking.picture(30).read)
    wide = replace(told[1], user="wide", candidate=replace(told[1].candidate, picture=pictures))
    longer = [replace(each, candidate=replace(each.candidate, text="red " * 9)) for each in blind] * 2
    options = config("qwen2_5_vl", length=215)
    for given in ({"examples": blind, "valid": [*longer, wide]}, {"examples": [*longer, *blind, wide]}):
        with pytest.raises(BadInput, match="user 'wide', item 'i1': the prompt takes"):
            sft.train(tmp_path, options, device="cpu", **given)
    assert not (tmp_path / "runs").exists()


def test_a_verb_for_one_kind_of_run_refuses_the_other(tmp_path: Path) -> None:
    from recommender.config import Config
    from recommender.fit import fit
    from recommender.runs import allot
    from tests.recommender.learning import ring

    told = asking.examples(8, pictures=False)
    mine = sft.train(tmp_path, config("llm", epochs=1), told, device="cpu")
    sequential = fit(
        ring(users=20), Config.of(width=8, length=6, epochs=1), allot(tmp_path, "sasrec-id"), device="cpu"
    )
    assert {run.name for run in list_runs(tmp_path)} == {mine.name, sequential.name}
    assert open_run(tmp_path, "latest").name == sequential.name
    assert open_run(tmp_path, "latest", MSR).name == mine.name
    for refused in (
        lambda: open_run(tmp_path, mine.name),
        lambda: promote(tmp_path, mine.name),
        lambda: mine.load_model(),
        lambda: mine.config,
    ):
        with pytest.raises(
            BadInput, match="a fine-tuned yes/no model, and a sequential recommender is asked for"
        ):
            refused()
    with pytest.raises(
        BadInput, match="a sequential recommender, and a fine-tuned yes/no model is asked for"
    ):
        Ranker.open(sequential, device="cpu")
