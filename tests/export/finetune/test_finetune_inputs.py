"""Inputs of fine-tuning: base models from folders, packages and the hub, and invalid data and flags."""

import json
from pathlib import Path

import pytest
import torch
from transformers import BertForQuestionAnswering

from export.finetune.__main__ import main
from export.finetune.base import find_base, load_model, load_tokenizer
from tests.export.finetune.rooms import command, paragraphs, write


class TestInvalidInput:
    def test_bad_records_are_reported_and_skipped(
        self, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content = paragraphs()
        content[0]["qas"][0]["answers"] = [{"text": "rope", "answer_start": 0}]
        content[1]["qas"][0]["answers"][0]["text"] = ""
        data = write(tmp_path / "data.json", content)
        assert main(command(bert, data, tmp_path / "out", "--epochs", "1")) == 0
        errors = capsys.readouterr().err
        assert "data.json: 40 questions, 2 bad records" in errors
        assert f"skipped {content[0]['qas'][0]['id']}: the context does not hold the answer" in errors
        assert f'skipped {content[1]["qas"][0]["id"]}: "text" is empty' in errors
        counts = json.loads((tmp_path / "out" / "training.json").read_text())["counts"]
        assert (counts["bad_records"], counts["examples"]) == (2, 39)

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ('{"data": []}', "no usable question"),
            ('{"data": [', "is not JSON"),
            ('{"data": [{"paragraphs": [{"context": "A b.", "qas": []}]}]}', "no usable question"),
        ],
    )
    def test_nothing_to_train_on(
        self, content: str, expected: str, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data = tmp_path / "data.json"
        data.write_text(content)
        assert main(command(bert, data, tmp_path / "out")) == 2
        errors = capsys.readouterr().err
        assert expected in errors.splitlines()[-1]
        assert "Traceback" not in errors
        assert list(tmp_path.iterdir()) == [data]

    @pytest.mark.parametrize(
        ("more", "expected"),
        [
            (("--train", "missing.json"), "missing.json cannot be read: No such file"),
            (("--max-seq-length", "129"), "at most 128 tokens"),
            (("--doc-stride", "64"), "are needed"),
            (("--device", "cuda:99"), "cuda:99 cannot be used"),
            (("--base", "."), "has no config.json"),
        ],
    )
    def test_errors_are_one_sentence_with_status_2(
        self,
        more: tuple[str, ...],
        expected: str,
        bert: Path,
        squad: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(command(bert, squad, tmp_path / "out", *more)) == 2
        errors = capsys.readouterr().err
        assert expected in errors.splitlines()[-1]
        assert "Traceback" not in errors

    @pytest.mark.parametrize(
        "flag", ["--epochs=0", "--dropout=1", "--learning-rate=nan", "--temperature=inf"]
    )
    def test_flags_out_of_range(
        self, flag: str, bert: Path, squad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            main(command(bert, squad, tmp_path / "out", flag))
        assert caught.value.code == 2
        assert "is not in [" in capsys.readouterr().err

    def test_a_nan_loss_stops_the_run(
        self, bert: Path, squad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        broken = tmp_path / "broken"
        model = BertForQuestionAnswering.from_pretrained(bert)
        torch.nn.init.constant_(model.qa_outputs.bias, float("nan"))
        model.save_pretrained(broken)
        load_tokenizer(find_base(str(bert))).save_pretrained(broken)
        assert main(command(broken, squad, tmp_path / "out")) == 2
        assert "no longer a number: pass a smaller --learning-rate" in capsys.readouterr().err


class TestBase:
    def test_a_package_is_found_without_being_imported(
        self, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = tmp_path / "weights_of_a_test"
        package.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        (package / "model").symlink_to(bert)
        monkeypatch.syspath_prepend(tmp_path)
        base = find_base("weights-of-a-test")
        assert (base.id, base.location) == ("weights-of-a-test", str(package / "model"))
        assert base.weights_sha256 == find_base(str(bert)).weights_sha256
        assert load_model(base).config.hidden_size == 32

    def test_anything_else_is_a_hub_id(self) -> None:
        base = find_base("someone/some-model")
        assert (base.location, base.weights_sha256) == ("someone/some-model", None)
