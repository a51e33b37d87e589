# SPDX-License-Identifier: Apache-2.0
"""Where the files of the public benchmarks come from, where they go, and by what their content is known.

A file whose hash is known is accepted from whatever commit serves it. Where the hashes come from: GenEval's and DPG-Bench's were
taken of the files at the commits af4902f and 3c228f1; the questions of DPG-Bench were not at hand, but git names their content in
that commit's tree; of the two weight files only the first eight digits are known, which their publishers put into their names.
Those are pinned by a lock file at the first fetch, see `fetching`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unigen.evaluation.fid.inception import WEIGHTS_NAME, WEIGHTS_URL

GENEVAL = "https://raw.githubusercontent.com/djghosh13/geneval"
GENEVAL_COMMITS = ("b636c3c59106a271435556eff5c567f8569a8d53", "16f1681160a110fd077309eb04c1e004f951e06d")
ELLA_COMMITS = ("025f650e9b36b9603d606042635d98da09e870de", "4b8cbd38aff526f866319ca2b113f7285b39ddc0")
ELLA_ARCHIVE = "https://codeload.github.com/TencentQQGYLab/ELLA/tar.gz"
ELLA_FILES = "https://raw.githubusercontent.com/TencentQQGYLab/ELLA"
QUESTIONS_COPY = "https://raw.githubusercontent.com/showlab/Show-o/main/show-o2/evaluation/dpg_bench.csv"
DETECTOR = "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco"
DETECTOR_FILE = f"{DETECTOR}_20220504_001756-743b7d99.pth"
DETECTOR_URL = f"https://download.openmmlab.com/mmdetection/v2.0/mask2former/{DETECTOR}/{DETECTOR_FILE}"
CLIP = "clip-vit-large-patch14"
QUESTIONS = "dpg_bench/dpg_bench.csv"

Root = Literal["third_party", "checkpoints"]


@dataclass(frozen=True)
class Content:
    """What is known of a file's content."""

    kind: Literal["sha256", "git blob", "prompts"]
    """How `digest` is made: of the file, as git does of a file, or of a folder of prompts (`dpg.prompts.prompts_hash`)."""
    digest: str
    """The hash, or its beginning."""


@dataclass(frozen=True)
class Wanted:
    """One file, or one folder of files, of a benchmark."""

    place: str
    root: Root
    content: Content
    urls: tuple[str, ...]
    """Tried in turn, until one has the content."""
    member: str | None = None
    """For an archive: the file, or the folder of files, in it, below the archive's own folder."""


def _geneval(path: str, sha256: str) -> Wanted:
    urls = tuple(f"{GENEVAL}/{commit}/{path}" for commit in GENEVAL_COMMITS)
    return Wanted(f"geneval/{path}", "third_party", Content("sha256", sha256), urls)


SOURCES: dict[str, tuple[Wanted, ...]] = {
    "geneval": (
        _geneval(
            "prompts/evaluation_metadata.jsonl", "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
        ),
        _geneval("prompts/generation_prompts.txt", "55b6e3650e980c13daf30569eb666e000faf19bfc2b7b4cbe999fcdb7aa9d680"),
        _geneval("evaluation/object_names.txt", "608f6a0e5c8ca1c7a92b818430141fe268c85b7930b50f4160f1d65893b5bacd"),
    ),
    "dpg": (
        Wanted(
            "dpg_bench/prompts",
            "third_party",
            Content("prompts", "f1ec0c121bf59d4168831024c9d18f643e7173f334c7f6658c2e5f343ac99886"),
            tuple(f"{ELLA_ARCHIVE}/{commit}" for commit in ELLA_COMMITS),
            member="dpg_bench/prompts",
        ),
        Wanted(
            QUESTIONS,
            "third_party",
            Content("git blob", "98457fc9901943f51ff9a30367250fc292533bed"),
            (*(f"{ELLA_FILES}/{commit}/{QUESTIONS}" for commit in ELLA_COMMITS), QUESTIONS_COPY),
        ),
    ),
    "detector": (Wanted(DETECTOR_FILE, "checkpoints", Content("sha256", "743b7d99"), (DETECTOR_URL,)),),
    "inception": (Wanted(WEIGHTS_NAME, "checkpoints", Content("sha256", "6726825d"), (WEIGHTS_URL,)),),
}
"""The benchmarks' files by name; CLIP comes from the Hugging Face hub, see `unigen.config.assets`."""


@dataclass(frozen=True)
class Roots:
    """The folders that files go to."""

    third_party: Path
    checkpoints: Path

    def place(self, wanted: Wanted) -> Path:
        return (self.third_party if wanted.root == "third_party" else self.checkpoints) / wanted.place
