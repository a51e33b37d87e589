# SPDX-License-Identifier: Apache-2.0
"""A transformers model in the process replies the same in any batch, and says what it cannot read."""

from pathlib import Path

import pytest

from tests.annotation.chat_models import text_model, vision_model
from tests.data.archives import png
from unigen.annotation.judges.judge import Reply, Request
from unigen.annotation.judges.transformer import TransformerJudge
from unigen.errors import CheckpointError


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judges")
    text_model(folder / "text")
    vision_model(folder / "vision")
    return folder


def load(folder: Path, batch_size: int = 4, temperature: float = 0.0) -> TransformerJudge:
    return TransformerJudge.load(
        str(folder), folder, "cpu", max_tokens=6, temperature=temperature, batch_size=batch_size
    )


def test_replies_do_not_depend_on_the_batch(models: Path) -> None:
    requests = [(number, Request("is there a circle? " * (number + 1))) for number in range(3)]
    together, alone = (list(load(models / "text", size).replies(requests)) for size in (4, 1))
    assert together == alone
    assert len({reply.text for _, reply in together}) > 1


def test_a_model_that_reads_images_sees_them(models: Path) -> None:
    requests = [(number, Request("is there a circle?", png(number))) for number in range(3)]
    together, alone = (list(load(models / "vision", size).replies(requests)) for size in (4, 1))
    assert together == alone
    assert all(reply.error is None for _, reply in together)
    assert len({reply.text for _, reply in together}) > 1


def test_a_text_model_refuses_images_and_anyone_a_damaged_one(models: Path) -> None:
    replies = dict(load(models / "text").replies([(0, Request("look", png(0))), (1, Request("read"))]))
    assert "does not read images" in (replies[0].error or "")
    assert replies[1].error is None
    damaged = dict(load(models / "vision").replies([(0, Request("look", b"no image")), (1, Request("look", png(0)))]))
    assert "unreadable_image" in (damaged[0].error or "")
    assert isinstance(damaged[1], Reply)
    assert damaged[1].error is None


def test_the_identity_tells_models_and_settings_apart(models: Path) -> None:
    known = load(models / "text").identity()
    assert known == load(models / "text", batch_size=1).identity()
    assert known != load(models / "text", temperature=0.5).identity()
    assert known != load(models / "vision").identity()


def test_a_model_that_cannot_chat_is_refused(models: Path, tmp_path: Path) -> None:
    text_model(tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="no chat template"):
        load(tmp_path / "base")
