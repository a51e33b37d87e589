# SPDX-License-Identifier: Apache-2.0
"""The settings of an evaluation: how images are drawn, and one section for each benchmark that has settings of its own.

Nothing here describes a model: architecture and vocabulary come from the checkpoint. A section is named as its benchmark; paths
are seen from where the command is run.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from unigen.config.policy import EncoderKind

UNIFIED_BENCH_METRICS: tuple[EncoderKind, ...] = ("clip", "longclip", "dinov2", "dinov3")
"""The four encoders of Unified-Bench; its overall score is over all of them or is not there."""


@dataclass(frozen=True)
class DrawingConfig:
    """Settings of drawing; null keeps the default of the model's family."""

    guidance_scale: float | None = None
    """0 and 1 follow the prompt alone."""
    steps: int | None = None
    """Drawing steps of an image."""
    temperature: float | None = None
    """Randomness of which codes are kept."""
    temperature_schedule: str | None = None
    """How the temperature falls over the steps: `compounding` (as released) or `linear`."""
    top_k: int | None = None
    """UniFork: choose among so many of the most probable codes; 0 takes all."""
    top_p: float | None = None
    """UniFork: choose among codes of this total probability."""
    negative_prompt: str | None = None
    """UniFork, UAE: what guidance leads away from."""
    resolution: int | None = None
    """UAE: side of the images in pixels."""

    def given(self) -> dict[str, Any]:
        """The settings that differ from the family's defaults, as a pipeline takes them."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class LmmsConfig:
    """Settings of the tasks of lmms-eval."""

    tasks: tuple[str, ...] = (
        "pope",
        "mmmu_val",
        "seedbench",
        "gqa",
        "scienceqa_img",
        "ai2d",
        "realworldqa",
        "mathvista_testmini",
    )
    """Names of tasks or groups, lmms-eval's own or those of `include_path`."""
    include_path: str | None = None
    """A folder with more task files."""
    most_new_tokens: int = 1024
    """No answer is longer, whatever its task allows."""


@dataclass(frozen=True)
class DpgConfig:
    """Settings of DPG-Bench."""

    prompts: str | None = None
    """Folder of `<item_id>.txt`, or a JSONL file with `item_id` and `text`; null takes `third_party/dpg_bench/prompts`."""
    questions: str | None = None
    """csv of the questions; null takes `third_party/dpg_bench/dpg_bench.csv`."""
    num_prompts: int = 1065
    """How many prompts there have to be; another number is refused, or makes the result partial."""
    grid: Literal["plain", "released"] = "plain"
    """`released` has the lines of two pixels between tiles that the released evaluation had, and cuts as if there were none."""
    judge: Literal["mplug", "file", "model"] = "mplug"
    """Who answers: mPLUG or another judge outside, through files, or a model of this project."""
    judge_name: str | None = None
    """What a judge other than mPLUG is called; its scores are `dpg_<name>`."""
    judge_model: str | None = None
    """Checkpoint of the judge that is a model."""
    judge_python: str | None = None
    """The python of mPLUG's environment, to have the questions answered in the same command; null leaves that to the user."""
    golden: str | None = None
    """`self_test.json` of an installation that is trusted: the judge must answer its questions alike before it is believed."""


@dataclass(frozen=True)
class GenevalConfig:
    """Settings of GenEval. Every number is the official one unless it is given; a score made with another says so."""

    prompts: str | None = None
    """JSONL of prompts; null takes `third_party/geneval/prompts/evaluation_metadata.jsonl`. Other prompts are another variant."""
    detector: str | None = None
    """Mask2Former: a .pth of OpenMMLab or a folder of transformers, as given or under `<data root>/checkpoints`; `meta` is the
    folder of Meta's weights; null finds OpenMMLab's `mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco*.pth`."""
    clip: str = "clip-vit-large-patch14"
    """Folder of the CLIP that names colours, as given or under `<data root>/checkpoints`."""
    golden: str | None = None
    """Results in the official JSONL, with images beside it, that this installation must reproduce before it scores."""
    score: float = 0.3
    """Detections count above this score."""
    counting_score: float = 0.9
    """The same for every class of a `counting` prompt."""
    max_objects_per_class: int = 16
    max_overlap: float = 1.0
    """Of two detections of one class that overlap by this much or more (IoU) the worse is dropped; 1 drops none."""
    position: float = 0.1
    """Share of the two extents by which centres must differ before a relation holds."""
    background: str = "#999"
    """Colour around an object whose own colour is asked for; `original` leaves the image."""
    crop: bool = True
    """Whether only the object's box is looked at for its colour."""


@dataclass(frozen=True)
class FidConfig:
    """Settings of the Fréchet Inception distance, of any folder and of MJHQ-30K."""

    reference: str | None = None
    """For `fid`: what `--images` is compared with, a folder of images (folders in it are categories) or stored statistics."""
    weights: str | None = None
    """Weights of the Inception network; null takes torch-fidelity's file under `<data root>/checkpoints`."""
    weights_sha256: str = "6726825d"
    """How the SHA-256 of the weights begins."""
    golden: str | None = None
    """`self_test.json` of an installation that is trusted, whose features must be reproduced."""


@dataclass(frozen=True)
class MjhqFidConfig:
    """Settings of MJHQ-30K."""

    metadata: str | None = None
    """Its `meta_data.json`; null takes `<data root>/datasets/MJHQ-30K/meta_data.json`."""
    reference: str | None = None
    """Folder of its images, or stored statistics; null takes `mjhq30k_imgs` beside the metadata."""
    num_prompts: int = 30000
    """How many prompts there have to be; another number is refused, or makes the result partial."""


@dataclass(frozen=True)
class BestOfNConfig:
    """Settings of the benchmarks that rate several drawings of each prompt and score the best (`geneval_cot` and the like).

    The released evaluation calls 20 drawn, best 4 kept "N=5": five candidates for each of the four images that are scored."""

    num_drawn: int = 20
    """Images drawn of each prompt."""
    num_kept: int = 4
    """How many of them are kept and scored."""
    verifiers: tuple[str, ...] = ("think",)
    """How the model rates, one selection each: think, outcome, rule, probability."""
    questions: str | None = None
    """JSONL with `item_id` and `questions`, for `rule` and `probability`; null takes the benchmark's own, or what follows from
    the words of a prompt."""


@dataclass(frozen=True)
class AlignmentConfig:
    """Settings of the alignment of images and texts, layer by layer."""

    pairs: str | None = None
    """Images with captions: a folder of images with a .txt beside each; a .jsonl of {image, caption}, a .tsv of path and caption,
    or a .parquet with the columns image and caption; a folder of WebDataset shards, or a brace list of them. Null takes those of
    the world of shapes that training never shows."""
    num_pairs: int = 1024
    """At most so many are taken, the first ones."""
    num_neighbours: int = 10
    """k: how many nearest neighbours of a sample count."""


@dataclass(frozen=True)
class SimilarityEncoderConfig:
    """An encoder by which images are compared."""

    kind: EncoderKind
    model: str | None = None
    """Its folder, as given or under `<data root>/checkpoints`; null takes the published one of the kind."""
    weights: str | None = None
    """How the hash of its weights begins, as manifests name it; null compares the published ones with what is known of them."""


def _published_encoders() -> dict[str, SimilarityEncoderConfig]:
    return {name: SimilarityEncoderConfig(kind=name) for name in UNIFIED_BENCH_METRICS}


@dataclass(frozen=True)
class UnifiedBenchConfig:
    """Settings of Unified-Bench (arXiv 2509.09666): images are captioned, drawn again from the caption alone, and compared."""

    images: str | None = None
    """Folder of the images, those in its folders too; null takes the release's, `<data root>/datasets/unified_bench`. In the
    world of shapes `evaluation/captioned` holds images that training never shows."""
    num_images: int = 100
    """How many are taken, the first ones by name; fewer are refused, or make the result partial."""
    models: tuple[str, ...] = UNIFIED_BENCH_METRICS
    """Which of `encoders` compare. There is an overall score of the published four alone."""
    encoders: dict[str, SimilarityEncoderConfig] = field(default_factory=_published_encoders)
    """Encoders by name: the published four, and any of one's own."""
    question: str | None = None
    """What asks for a caption; null takes the family's own words."""
    max_new_tokens: int | None = None
    """Longest caption; null takes the family's, 512 for UAE as released."""
    caption_temperature: float | None = None
    """Null takes the family's, 0.7 for UAE as released, 0 (the likeliest word) for the others."""


@dataclass(frozen=True)
class QuestionFileConfig:
    """Where the files of a benchmark of the LLaVA 1.5 protocol lie; null takes its place under `playground/data/eval`, which is
    looked for here and below the data root."""

    questions: str | None = None
    """JSONL of `question_id`, `image`, `text`, perhaps `category`."""
    images: str | None = None
    """The folder that the images of the questions are relative to."""
    truth: str | None = None
    """The right answers, as the benchmark publishes them: MME's and POPE's are folders."""


@dataclass(frozen=True)
class EvaluationConfig:
    seed: int = 0
    """Base of one seed per image."""
    num_images: int = 4
    """Images of each prompt."""
    batch_size: int = 16
    """Images or questions at once; changes no image."""
    drawing: DrawingConfig = field(default_factory=DrawingConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    best_of_n: BestOfNConfig = field(default_factory=BestOfNConfig)
    dpg: DpgConfig = field(default_factory=DpgConfig)
    fid: FidConfig = field(default_factory=FidConfig)
    mjhq_fid: MjhqFidConfig = field(default_factory=MjhqFidConfig)
    geneval: GenevalConfig = field(default_factory=GenevalConfig)
    lmms: LmmsConfig = field(default_factory=LmmsConfig)
    gqa: QuestionFileConfig = field(default_factory=QuestionFileConfig)
    mme: QuestionFileConfig = field(default_factory=QuestionFileConfig)
    pope: QuestionFileConfig = field(default_factory=QuestionFileConfig)
    seed_bench: QuestionFileConfig = field(default_factory=QuestionFileConfig)
    unified_bench: UnifiedBenchConfig = field(default_factory=UnifiedBenchConfig)
    vqav2: QuestionFileConfig = field(default_factory=QuestionFileConfig)
