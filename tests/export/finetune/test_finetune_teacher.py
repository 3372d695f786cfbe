"""Distillation from a teacher with the same or another tokenizer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from export.finetune.__main__ import main
from export.finetune.base import find_base, load_model, load_tokenizer
from export.finetune.batches import collate
from export.finetune.examples import context_offsets, encode_pair
from export.finetune.teacher import Teacher, map_probabilities, teach
from tests.export.finetune.rooms import command, covered, features_of

CPU = torch.device("cpu")


class TestTeacher:
    @pytest.mark.parametrize("name", ["bert", "roberta"])
    def test_probabilities_are_mapped_by_offsets(
        self, name: str, tokenizer: PreTrainedTokenizerFast, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        base = find_base(str(request.getfixturevalue(name)))
        teacher = Teacher(load_model(base), load_tokenizer(base), 128, 2.0, CPU, False)
        context = "The red box holds a lamp. Room 7 is small: the café box holds a key 🌊. " * 6
        features = features_of(tokenizer, context, "lamp")
        assert len(features) > 1
        soft = teach(features, teacher, tmp_path)
        for feature, probabilities in zip(features, soft, strict=True):
            assert probabilities is not None
            assert probabilities.shape == (len(feature.ids), 2)
            assert probabilities.astype(np.float32).sum(axis=0) == pytest.approx([1, 1], abs=2e-3)
            outside = feature.offsets[:, 0] < 0
            outside[feature.cls_at] = False
            assert not probabilities[outside].any()

    def test_the_same_tokenizer_gives_the_teachers_own_softmax(
        self, bert: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
    ) -> None:
        model = load_model(find_base(str(bert))).eval()
        torch.nn.init.normal_(model.qa_outputs.weight, generator=torch.Generator().manual_seed(0))
        (feature,) = features_of(tokenizer, "The red box holds a lamp. The blue box holds a key.", "lamp")
        (soft,) = teach([feature], Teacher(model, tokenizer, 128, 2.0, CPU, False), tmp_path)
        batch = collate([feature], None, tokenizer.pad_token_id)
        with torch.inference_mode():
            output = model(batch.ids, batch.mask, batch.types)
        logits = torch.stack((output.start_logits, output.end_logits), -1)[0] / 2.0
        expected = logits.masked_fill(~batch.allowed[0].unsqueeze(-1), -torch.inf).softmax(dim=0)
        assert soft is not None
        assert np.abs(soft - expected.numpy()[: len(soft)]).max() < 1e-3
        assert soft.std() > 0.01

    def test_starts_and_ends_are_mapped_by_character_offset(
        self, roberta: Path, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        context = "The red box holds a lamp."
        (feature,) = features_of(tokenizer, context, "lamp")
        other = load_tokenizer(find_base(str(roberta)))
        encoding = encode_pair(other, "What?", context, 128, 0)
        offsets = context_offsets(other, encoding, 0)
        at = context.index("lamp")
        logits = np.full((len(offsets), 2), -20, dtype=np.float32)
        logits[offsets[:, 0] == at, 0] = 5
        logits[offsets[:, 1] == at + 4, 1] = 5
        soft = map_probabilities(logits, offsets, 0, feature)
        assert covered(feature, int(soft[:, 0].argmax()), int(soft[:, 1].argmax())) == "lamp"
        assert soft.max(axis=0) == pytest.approx([1, 1], abs=1e-3)

    def test_unmappable_probabilities_are_zero(self, tokenizer: PreTrainedTokenizerFast) -> None:
        (feature,) = features_of(tokenizer, "The red box holds a lamp.", "lamp")
        offsets = np.array([[-1, -1], [1, 2]], dtype=np.int32)
        logits = np.array([[-np.inf, -np.inf], [0, 0]], dtype=np.float32)
        assert not map_probabilities(logits, offsets, 0, feature).any()

    def test_cached_windows_are_not_recomputed(
        self, bert: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
    ) -> None:
        features = features_of(tokenizer, "The red box holds a lamp.", "lamp")
        first = teach(
            features, Teacher(load_model(find_base(str(bert))), tokenizer, 128, 2.0, CPU, False), tmp_path
        )

        class Untouchable(torch.nn.Module):
            def forward(self, **_: object) -> None:
                raise AssertionError("asked again")

        second = teach(features, Teacher(Untouchable(), tokenizer, 128, 2.0, CPU, False), tmp_path)
        assert np.array_equal(first[0], second[0])  # type: ignore[arg-type]  # None would be unequal

    def test_training_with_a_teacher_of_another_tokenizer(
        self, bert: Path, roberta: Path, squad: Path, tmp_path: Path
    ) -> None:
        alone, taught = tmp_path / "alone", tmp_path / "taught"
        assert main(command(bert, squad, alone)) == 0
        assert main(command(bert, squad, taught, "--teacher", str(roberta), "--teacher-weight", "0.9")) == 0
        record = json.loads((taught / "training.json").read_text())
        assert record["arguments"]["teacher"]["id"] == roberta.name
        assert (taught / "model.safetensors").read_bytes() != (alone / "model.safetensors").read_bytes()
        assert list(tmp_path.glob("*.checkpoint")) == []
