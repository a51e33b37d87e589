# SPDX-License-Identifier: Apache-2.0
"""The options of every step that asks a judge, and how the judge is made from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from unigen.cli.model_options import check_device, with_options
from unigen.errors import ConfigError

if TYPE_CHECKING:
    from unigen.annotation.judges.judge import Judge

KINDS = {
    "endpoint": "a server that speaks OpenAI's protocol; keys from OPENAI_API_KEY and OPENAI_ORG",
    "transformers": "a model in this process",
    "unigen": "a checkpoint of this project",
    "detector": "the exact one of the world of shapes",
    "rule": "no model at all",
}


def options(*kinds: str, max_tokens: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options of a step that takes judges of these kinds."""
    meaning = "; ".join(f"{kind}: {KINDS[kind]}" for kind in kinds)
    return with_options(
        (
            click.option("--judge", default=kinds[0], show_default=True, type=click.Choice(kinds), help=meaning + "."),
            click.option("--model", help="The judge's name: what the server calls it, or a folder."),
            click.option(
                "--base-url", help="Address of the server, such as http://127.0.0.1:8000/v1.  [OPENAI_BASE_URL]"
            ),
            click.option(
                "--num-in-flight", default=32, show_default=True, type=click.IntRange(min=1), help="Requests at once."
            ),
            click.option(
                "--num-attempts", default=10, show_default=True, type=click.IntRange(min=1), help="Of one request."
            ),
            click.option(
                "--timeout", default=300.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Seconds."
            ),
            click.option(
                "--max-tokens", default=max_tokens, show_default=True, type=click.IntRange(min=1), help="Of a reply."
            ),
            click.option("--temperature", default=0.0, show_default=True, type=click.FloatRange(min=0)),
            click.option(
                "--judge-batch-size", default=16, show_default=True, type=click.IntRange(min=1), help="In this process."
            ),
            click.option("--data-root", default="unigen_data", show_default=True, help="Where checkpoints are kept."),
            click.option("--device", help="cpu, cuda, cuda:1, ...  [the GPU if there is one]"),
        )
    )


def load(
    *,
    judge: str,
    model: str | None,
    base_url: str | None,
    num_in_flight: int,
    num_attempts: int,
    timeout: float,
    max_tokens: int,
    temperature: float,
    judge_batch_size: int,
    data_root: str,
    device: str | None,
) -> Judge:
    """The judge that the options describe.

    Raises:
        ConfigError: it needs a --model, or what it needs is not installed.
    """
    if judge == "detector":
        from unigen.annotation.judges.detector import DetectorJudge

        return DetectorJudge()
    if model is None:
        raise ConfigError(f"--judge {judge} needs a --model")
    if judge == "endpoint":
        from unigen.annotation.judges.endpoint import EndpointJudge, EndpointSettings

        return EndpointJudge(
            EndpointSettings(
                model,
                base_url,
                max_tokens=max_tokens,
                temperature=temperature,
                num_in_flight=num_in_flight,
                num_attempts=num_attempts,
                timeout_seconds=timeout,
            )
        )
    from unigen.data.ranks import Ranks

    device = device or Ranks.from_environment().own_device()
    return _load_model(judge, model, data_root, device, max_tokens, temperature, judge_batch_size)


def _load_model(
    judge: str, model: str, data_root: str, device: str, max_tokens: int, temperature: float, batch_size: int
) -> Judge:
    check_device(device)
    if judge == "unigen":
        from unigen.annotation.judges.pipeline import PipelineJudge
        from unigen.generation.pipeline import load_pipeline

        pipeline = load_pipeline(model, data_root=data_root, device=device)
        return PipelineJudge(pipeline, max_tokens=max_tokens, temperature=temperature, batch_size=batch_size)
    from unigen.annotation.judges.transformer import TransformerJudge

    return TransformerJudge.load(
        model, data_root, device, max_tokens=max_tokens, temperature=temperature, batch_size=batch_size
    )
