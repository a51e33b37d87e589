# SPDX-License-Identifier: Apache-2.0
"""Running the one step that decoding repeats: eagerly, as a CUDA graph, or compiled.

A step is a function of tensors whose shapes stay the same: of fixed arguments (weights, cached keys and values) and of those
that change from step to step. It asks the device for nothing, so the host runs ahead of it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

Decoding = Literal["auto", "eager", "graph", "compile"]
"""`auto` is `graph` on CUDA and `eager` elsewhere; `compile` adds fused kernels to the graph, after minutes of compiling.
All give the same tokens, up to rounding."""
DECODINGS: tuple[Decoding, ...] = ("auto", "eager", "graph", "compile")
FEWEST_STEPS = 6
"""Recording a graph takes about three eager steps, so `auto` has none for fewer steps than this."""
WARM_UP_STEPS = 2
Step = Callable[..., tuple[Tensor, ...]]


def step_runner(step: Step, fixed: Sequence[Any], decoding: Decoding, device: torch.device, num_steps: int) -> Step:
    """`step(*fixed, *changing)` as a function of what changes.

    Args:
        step: a function at the level of a module, so that it is compiled once and for all calls.
        num_steps: how often it will be called.
    """
    if decoding == "auto":
        decoding = "graph" if device.type == "cuda" and num_steps >= FEWEST_STEPS else "eager"
    if decoding == "compile":
        return functools.partial(_run_compiled, step, fixed)
    if decoding == "graph" and device.type == "cuda":
        return _RecordedStep(step, fixed)
    return functools.partial(step, *fixed)


@functools.cache
def _compiled(step: Step) -> Step:
    # One shape is compiled at a time: symbols would keep CUDA graphs away.
    compiled: Step = torch.compile(step, mode="reduce-overhead", fullgraph=True, dynamic=False)
    return compiled


def _run_compiled(step: Step, fixed: Sequence[Any], *changing: Tensor) -> tuple[Tensor, ...]:
    torch.compiler.cudagraph_mark_step_begin()
    return tuple(
        output.clone() for output in _compiled(step)(*fixed, *changing)
    )  # the next step writes over its outputs


class _RecordedStep:
    """A CUDA graph of a step, recorded when it is called first."""

    def __init__(self, step: Step, fixed: Sequence[Any]) -> None:
        self._step = functools.partial(step, *fixed)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._outputs: tuple[Tensor, ...] = ()

    def __call__(self, *changing: Tensor) -> tuple[Tensor, ...]:
        if self._graph is None:
            self._graph = self._record(changing)
        for place, given in zip(self._inputs, changing, strict=True):
            place.copy_(given)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)

    def _record(self, changing: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
        self._inputs = [given.clone() for given in changing]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries allocate their workspaces in the first calls, which a graph must not
            for _ in range(WARM_UP_STEPS):
                self._step(*self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._outputs = self._step(*self._inputs)
        return graph
