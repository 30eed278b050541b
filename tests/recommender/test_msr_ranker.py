from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featurestore.errors import BadInput, NotFound
from recommender.msr import models
from recommender.msr.cache import after
from recommender.msr.examples import Example
from recommender.msr.prompt import Batch
from recommender.msr.ranker import Ranker, SlowRanking
from tests.recommender import asking
from tests.recommender.asking import LIKES, SEEING


def ranker(kind: str, *, cached: bool = True, batch: int = 32) -> Ranker:
    found = asking.loaded(kind)
    return Ranker(found.model, found.prompt, batch=batch, cached=cached)


@pytest.mark.parametrize("kind", ["llm", *SEEING])
def test_scores_are_the_same_from_a_shared_cache_alone_and_in_batches(kind: str) -> None:
    asked = asking.candidates(9, pictures=kind != "llm")
    one = ranker(kind, cached=False)
    plain = one.score(LIKES, asked)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowRanking)
        shared = ranker(kind).score(LIKES, asked)
    np.testing.assert_allclose(shared, plain, atol=1e-4)
    np.testing.assert_allclose([one.score(LIKES, [each])[0] for each in asked], plain, atol=1e-5)
    np.testing.assert_allclose(ranker(kind, batch=2).score(LIKES, asked), plain, atol=1e-4)
    backwards = ranker(kind).score(LIKES, asked[::-1])
    np.testing.assert_allclose(backwards[::-1], plain, atol=1e-4)
    assert plain.dtype == np.float64
    assert len(np.unique(plain.round(5))) > 5, "answers that do not differ compare nothing"


@pytest.mark.parametrize("kind", ["llm", "llava_next"])
def test_padding_beside_a_much_longer_candidate_changes_nothing(kind: str) -> None:
    asked = asking.candidates(3, pictures=kind != "llm")
    long = replace(asked[0], text="describe the picture in one sentence " * 20)
    for cached in (True, False):
        model = ranker(kind, cached=cached)
        np.testing.assert_allclose(
            model.score(LIKES, [*asked, long])[:3], model.score(LIKES, asked), atol=1e-5
        )


def test_a_picture_is_seen_and_pictures_of_one_size_are_told_apart() -> None:
    asked = asking.candidates(2)[1]
    assert asked.picture is not None
    dark = replace(asking.picture(1), read=asking.picture(2).read)
    found = ranker("qwen2_5_vl").score(
        LIKES, [asked, replace(asked, picture=None), replace(asked, picture=dark)]
    )
    assert len(np.unique(found.round(6))) == 3


def test_a_model_that_cannot_be_continued_is_found_out_and_asked_plainly() -> None:
    asked = asking.candidates(6, pictures=False)
    plain = ranker("both_ways", cached=False).score(LIKES, asked)
    model = ranker("both_ways")
    with pytest.warns(SlowRanking, match="cannot be continued"):
        found = model.score(LIKES, asked)
    np.testing.assert_allclose(found, plain, atol=1e-5)
    assert not model.cached


def test_it_goes_on_from_users_with_pictures_to_users_without() -> None:
    """Models with places in height and width remember the last picture's."""
    with_pictures, without = asking.candidates(4), asking.candidates(4, pictures=False)
    model, fresh = ranker("qwen2_5_vl"), ranker("qwen2_5_vl", cached=False)
    model.score(LIKES, with_pictures)
    np.testing.assert_allclose(model.score(LIKES, without), fresh.score(LIKES, without), atol=1e-4)
    np.testing.assert_allclose(
        model.score(LIKES, with_pictures), fresh.score(LIKES, with_pictures), atol=1e-4
    )


def test_the_score_is_yes_against_no_at_the_last_token() -> None:
    import torch

    model = ranker("llm")
    asked = asking.candidates(1, pictures=False)
    inputs = model.prompt.encode(LIKES, asked[0])
    with torch.inference_mode():
        logits = model.model(**inputs).logits[0, -1]
    pair = logits[[model.prompt.yes, model.prompt.no]].double().softmax(0)
    assert model.score(LIKES, asked)[0] == pytest.approx(float(pair[0]), abs=1e-6)
    assert len(model.score(LIKES, [])) == 0


def test_candidates_are_told_apart_more_finely_than_bfloat16_can_say() -> None:
    import torch

    found = asking.loaded("llm", dtype="bfloat16")
    asked = asking.candidates(21, pictures=False)
    model = Ranker(found.model, found.prompt)
    odds = model.log_odds(LIKES, asked)
    assert len(np.unique(odds)) == 21
    head = found.model.get_output_embeddings()
    assert "forward" not in vars(head)
    inputs = found.prompt.encode(LIKES, asked[0])
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        state = found.model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1].float()
    weight = head.weight.detach().float()
    expected = state.clone() @ (weight[found.prompt.yes] - weight[found.prompt.no])
    assert odds[0] == pytest.approx(float(expected), abs=0.05)


def test_examples_come_back_in_their_order() -> None:
    asked = asking.candidates(6, pictures=False)
    told = [Example(f"u{k // 3}", LIKES + str(k // 3), each, False) for k, each in enumerate(asked)]
    model = ranker("llm")
    found = model.score_examples(told)
    expected = [model.score(each.preference, [each.candidate])[0] for each in told]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_model_with_an_encoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = models.load_chat

    def with_encoder(*given: Any) -> Any:
        chat = plain(*given)
        chat.model.config.is_encoder_decoder = True
        return chat

    monkeypatch.setattr(models, "load_chat", with_encoder)
    with pytest.raises(BadInput, match="reads with an encoder"):
        Ranker.open(asking.folder("llm"), config=asking.config("llm"), device="cpu")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model or run"):
        Ranker.open(tmp_path / "nothing", device="cpu")
    with pytest.raises(NotFound, match="adapter_config"):
        Ranker.open(asking.folder("llm"), adapter=tmp_path, config=asking.config("llm"), device="cpu")
    with pytest.raises(BadInput, match="reads no pictures"):
        Ranker.open(asking.folder("llm"), config=asking.config("llm", image=True), device="cpu")


def test_pixels_are_not_cut_however_many_numbers_a_patch_has() -> None:
    ids = torch.arange(24).view(2, 12)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": torch.zeros_like(ids),
        "pixel_values": torch.rand(
            2, 12
        ),  # as many numbers a patch as there are tokens, as many patches as prompts
        "image_grid_thw": torch.ones(2, 12),
    }
    cut = after(Batch(inputs, torch.tensor([11, 11])), 5, torch.device("cpu"))
    assert {name: value.shape[1] for name, value in cut.items()} == {
        "input_ids": 7, "attention_mask": 12, "mm_token_type_ids": 7, "pixel_values": 12, "image_grid_thw": 12,
    }  # fmt: skip
