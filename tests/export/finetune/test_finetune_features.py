"""From questions to padded batches and their loss."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from export.finetune.batches import LENGTH_STEP, Batch, Vocabulary, collate, hide, plan_epoch
from export.finetune.examples import MAX_QUESTION_TOKENS, build_examples, build_features
from export.finetune.training import span_loss
from export.squad import read_squad
from tests.export.finetune.rooms import covered, features_of, paragraphs, write


class TestFeatures:
    def test_every_annotated_span_is_a_target(self, tokenizer: PreTrainedTokenizerFast) -> None:
        (feature,) = features_of(tokenizer, "The réd box holds a lamp 🌊 and a key.", "lamp", "a lamp", "key")
        spans = zip(feature.starts, feature.ends, strict=True)
        assert [covered(feature, *span) for span in spans] == ["lamp", "a lamp", "key"]
        batch = collate([feature], None, 0)
        assert batch.targets.sum(dim=1).tolist() == [[pytest.approx(1), pytest.approx(1)]]
        assert batch.targets[0, feature.starts[0], 0] == pytest.approx(1 / 3)
        assert batch.targets[0, feature.ends[0], 1] == pytest.approx(2 / 3)  # "lamp" and "a lamp"

    def test_white_space_around_an_answer_is_removed(self, tokenizer: PreTrainedTokenizerFast) -> None:
        (feature,) = features_of(tokenizer, "The red box holds a lamp here.", " a lamp ")
        assert covered(feature, feature.starts[0], feature.ends[0]) == "a lamp"

    def test_a_window_without_the_answer_targets_cls(self, tokenizer: PreTrainedTokenizerFast) -> None:
        context = "The red box holds a lamp. " * 30 + "Room 7 is green. " + "The blue box holds a key. " * 30
        features = features_of(tokenizer, context, "green")
        with_answer = [feature for feature in features if feature.starts != (feature.cls_at,)]
        assert len(features) > 3
        assert 1 <= len(with_answer) <= 2
        for feature in with_answer:
            assert covered(feature, feature.starts[0], feature.ends[0]) == "green"
        for feature in features:
            assert len(feature.ids) <= 128
            assert feature.ids[feature.cls_at] == tokenizer.cls_token_id
            if feature not in with_answer:
                assert feature.ends == (feature.cls_at,)
        for left, right in itertools.pairwise(features):
            shared = {tuple(o) for o in left.offsets.tolist()} & {tuple(o) for o in right.offsets.tolist()}
            assert len(shared - {(-1, -1)}) == 32

    def test_an_answer_without_tokens_is_skipped(self, tokenizer: PreTrainedTokenizerFast) -> None:
        assert features_of(tokenizer, "The red \x01 box holds a lamp.", "\x01") == []

    def test_a_long_question_is_truncated(self, tokenizer: PreTrainedTokenizerFast) -> None:
        (feature,) = features_of(tokenizer, "The red box holds a lamp.", "lamp", question="what box " * 200)
        assert (feature.types == 0).sum() == MAX_QUESTION_TOKENS + 2  # CLS and the first SEP
        assert covered(feature, feature.starts[0], feature.ends[0]) == "lamp"

    def test_impossible_questions_target_cls(
        self, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        content = paragraphs()[:1]
        content[0]["qas"][0] |= {"answers": [], "is_impossible": True}
        examples = build_examples(read_squad(write(tmp_path / "v2.json", content)), 0, "")
        first, second = build_features(examples, tokenizer, 128, 32)
        assert first.starts == first.ends == (first.cls_at,)
        assert second.starts != (second.cls_at,)


class TestBatches:
    def test_an_epoch_is_a_permutation_determined_by_seed_and_epoch(self) -> None:
        lengths = np.random.default_rng(0).integers(10, 200, 1001).tolist()
        plan = plan_epoch(lengths, 8, seed=5, epoch=1)
        assert sorted(np.concatenate(plan).tolist()) == list(range(1001))
        assert len(plan) == 126
        again = plan_epoch(lengths, 8, seed=5, epoch=1)
        assert [rows.tolist() for rows in again] == [rows.tolist() for rows in plan]
        for seed, epoch in ((5, 2), (6, 1)):
            other = plan_epoch(lengths, 8, seed=seed, epoch=epoch)
            assert [rows.tolist() for rows in other] != [rows.tolist() for rows in plan]
        spread = [max(lengths[i] for i in rows) - min(lengths[i] for i in rows) for rows in plan]
        assert np.mean(spread) < 20  # 170 without bucketing

    def test_padding(self, tokenizer: PreTrainedTokenizerFast) -> None:
        features = features_of(tokenizer, "The red box holds a lamp.", "lamp") + features_of(
            tokenizer, "The red box holds a lamp. " * 5, "lamp"
        )
        batch = collate(features, None, pad_id=9)
        assert batch.ids.shape[1] % LENGTH_STEP == 0
        for row, feature in enumerate(features):
            tokens = len(feature.ids)
            assert batch.mask[row].sum() == tokens
            assert (batch.ids[row, tokens:] == 9).all()
            allowed = batch.allowed[row].nonzero().flatten().tolist()
            assert allowed[0] == feature.cls_at
            assert allowed[1:] == np.flatnonzero(feature.offsets[:, 0] >= 0).tolist()


class TestLoss:
    def batch(self, soft: torch.Tensor | None = None, taught: torch.Tensor | None = None) -> Batch:
        rows = torch.zeros(2, 6, dtype=torch.int64)
        targets = torch.zeros(2, 6, 2)
        targets[0, 2, 0] = targets[0, 4, 1] = targets[1, 1, 0] = targets[1, 3, 1] = 1
        allowed = torch.ones(2, 6, dtype=torch.bool)
        allowed[:, 5] = False
        return Batch(rows, rows, rows, allowed, targets, soft, taught)

    def test_the_loss_of_one_answer_is_cross_entropy_over_allowed_tokens(self) -> None:
        logits = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(0))
        expected = torch.stack(
            [
                torch.nn.functional.cross_entropy(logits[:, :5, 0], torch.tensor([2, 1])),
                torch.nn.functional.cross_entropy(logits[:, :5, 1], torch.tensor([4, 3])),
            ]
        ).mean()
        assert torch.isclose(span_loss(logits, self.batch(), 0.5, 2), expected)

    def test_a_student_equal_to_its_teacher_has_no_divergence(self) -> None:
        logits = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(0))
        soft = torch.zeros(2, 6, 2)
        soft[:, :5] = (logits[:, :5] / 3).softmax(dim=1)
        batch = self.batch(soft, torch.tensor([True, True]))
        assert span_loss(logits, batch, 1.0, 3).item() == pytest.approx(0, abs=1e-6)
        assert span_loss(-logits, batch, 1.0, 3).item() > 0.1
        untaught = self.batch(torch.zeros(2, 6, 2), torch.tensor([False, False]))
        assert torch.isclose(span_loss(logits, untaught, 1.0, 3), span_loss(logits, self.batch(), 1.0, 3))


def test_masking_skips_special_tokens_and_depends_on_the_seed() -> None:
    vocabulary = Vocabulary(pad_id=0, mask_id=4, special_ids=(0, 2, 3, 4))
    ids = torch.tensor([[2, *range(10, 110), 3, *range(10, 110), 3, 0, 0]])
    original = ids.clone()
    hidden = []
    for seed in (1, 2, 1):
        batch = replace(empty_batch(), ids=original.clone())
        hide(batch, vocabulary, 0.2, np.random.default_rng(seed))
        changed = batch.ids != original
        assert (batch.ids[changed] == 4).all()
        assert not changed[original < 10].any()
        assert 10 < changed.sum() < 80
        hidden.append(changed)
    assert torch.equal(hidden[0], hidden[2])
    assert not torch.equal(hidden[0], hidden[1])


def empty_batch() -> Batch:
    """A batch of empty tensors."""
    nothing = torch.zeros(0)
    return Batch(nothing, nothing, nothing, nothing, nothing, None, None)
