# SPDX-License-Identifier: Apache-2.0
"""The configuration: one dataclass per room. A YAML path equals the attribute path.

The string under a field says what it does.
"""

from dataclasses import dataclass, field
from typing import Literal

from unigen.config.evaluation import EvaluationConfig
from unigen.config.missing import MISSING
from unigen.config.policy import ColdstartConfig, GrpoConfig, LongcapConfig
from unigen.config.uae import UaeModelConfig

StageName = Literal[
    "tokenizer", "vision", "pretrain", "sft", "dpo", "longcap", "coldstart", "grpo_understanding", "grpo_generation"
]
ROW_STAGES: tuple[StageName, ...] = ("pretrain", "sft", "dpo")
"""The stages that train a language model on rows; the others train on single images."""
UAE_STAGES: tuple[StageName, ...] = (
    "tokenizer",
    "sft",
    "longcap",
    "coldstart",
    "grpo_understanding",
    "grpo_generation",
)
"""The stages of the family uae; none of them packs rows."""
TaskName = Literal["t2i", "mmu", "lm"]
TASKS: tuple[TaskName, ...] = ("t2i", "mmu", "lm")
TASKS_OF_FORMAT: dict[str, tuple[TaskName, ...]] = {
    "webdataset": ("t2i", "mmu"),
    "codes": ("t2i", "mmu"),
    "imagefolder": ("t2i", "mmu"),
    "captions": ("t2i", "mmu"),
    "conversations": ("mmu",),
    "preferences": ("t2i",),
    "prompts": ("t2i",),
    "parquet": ("lm",),
}
"""What the samples of a source's format can be for."""
IMAGE_RECORD_FORMATS = ("captions", "conversations", "preferences")
"""Files of JSON records that name images which lie beside them."""
RECORD_FORMATS = (*IMAGE_RECORD_FORMATS, "prompts")
"""Files of one record a line, or of one list."""
CAPTION_FORMATS = ("webdataset", "codes", "captions")
"""Images with captions that someone wrote."""


@dataclass(frozen=True)
class ExperimentConfig:
    name: str = MISSING
    """Name of the run, used by the trackers."""
    project: str = "unigen"
    """Project that the trackers file the run under."""
    output_dir: str = MISSING
    """Folder of the run: `checkpoint-<step>/`, `metrics.jsonl`, `config.yaml`, `validation/`."""
    seed: int = 0
    """Base seed of every draw: weights, order of the samples, masks, prompt drops, validation images."""
    resume: bool = True
    """Go on from the newest whole checkpoint of `output_dir`, if there is one."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 saves none by number."""
    keep_last: int = 2
    """How many of the newest checkpoints stay on disk; 0 keeps all."""
    log_every: int = 50
    """Steps between lines of metrics."""
    trackers: list[str] = field(default_factory=list)
    """Any of `tensorboard`, `wandb` (offline without a key); metrics.jsonl is always written."""
    checkpoint_every_minutes: float | None = None
    """Minutes between checkpoints, by the clock of the first rank; may be combined with `checkpoint_every`."""
    keep_every: int = 0
    """Steps between checkpoints that stay for good, whatever `keep_last` says; 0 keeps none so."""
    async_save: bool = True
    """Training goes on while a checkpoint is written from a copy in host memory; `false` waits, and needs no copy.
    DeepSpeed always waits."""
    time_limit_minutes: float | None = None
    """How long the job may run; null takes the end of the SLURM job where its environment names one."""
    stop_before_limit_minutes: float = 10.0
    """When so little is left of the time limit, the run saves itself and asks to be started again (exit code 75). At most a
    quarter of the time that there is."""
    stuck_after_minutes: float | None = 30.0
    """Without a finished step for so long (four times so long for the first), every rank writes its stacks to
    `stacks/rank-<n>.txt` and asks to be started again (exit code 75); null waits for ever."""


@dataclass(frozen=True)
class DepthTransformerConfig:
    """What turns a state of UniFork's generation branch into the codes of an image position."""

    attention_width: int = 3584
    """Width of its attention; the language model's own width takes a fifth of the parameters."""
    num_heads: int = 32
    num_layers: int = 6
    dropout: float = 0.1


@dataclass(frozen=True)
class ForkConfig:
    """UniFork: where the layers part into branches, and what its rows look like."""

    branches: Literal["both", "understanding", "generation"] = "both"
    """One of them alone makes an expert of one task."""
    num_shared_layers: int | None = None
    """Layers that both tasks run through: 0 is a mixture of transformers, all of them the fully shared model; null takes half."""
    num_understanding_layers: int | None = None
    """Layers of the understanding branch; null takes the rest of the language model's."""
    num_generation_layers: int | None = None
    """Layers of the generation branch; null takes the rest of the language model's."""
    depth_transformer: DepthTransformerConfig = field(default_factory=DepthTransformerConfig)
    draw_format: Literal["bare", "opened", "conversation"] = "conversation"
    """What stands around a caption that is drawn: nothing, `<|im_start|>` before it, or USER and ASSISTANT."""
    read_format: Literal["caption", "plain", "conversation"] = "conversation"
    """What stands around questions and answers: nothing but the answer, plain lines, or USER and ASSISTANT."""


@dataclass(frozen=True)
class ModelConfig:
    family: Literal["unigen", "unifork", "uae"] = "unigen"
    """Which family of models."""
    fork: ForkConfig = field(default_factory=ForkConfig)
    """UniFork alone. Of a checkpoint in `pretrained` its own numbers of layers and its depth transformer are kept."""
    uae: UaeModelConfig = field(default_factory=UaeModelConfig)
    """UAE alone. A checkpoint in `pretrained` brings its own parts, but for those that are named here one by one (`decoder`,
    `vae`); how it is talked to is what is said here."""
    pretrained: str | None = None
    """A checkpoint of this family to start from; null starts from `language_model`."""
    language_model: str = "Qwen2.5-1.5B-Instruct"
    """Folder of the language model (looked up under `<data.root>/checkpoints`), or a folder with its config.json."""
    initialization: Literal["pretrained", "random"] = "pretrained"
    """`random` draws the language model's weights from its config.json instead of loading them; for UAE those of all parts but
    `uae.decoder` and `uae.vae`, where they are named."""
    text_tokenizer: str | None = None
    """Folder of the text tokenizer; null takes the language model's. For UAE the folder of tokenizer and image processor."""
    tie_word_embeddings: Literal["keep", True, False] = "keep"
    """Input and output embedding: `keep` as the starting weights are, `true` one matrix, `false` two."""
    image_tokenizer: str = "magvitv2"
    """Folder of the image tokenizer; the stage `tokenizer` may start from a folder with a config.json alone."""
    vision_tower: str | None = None
    """Folder of the SigLIP or SigLIP2 tower that reads images; null reads through image codes. In the stage `tokenizer` a SigLIP
    whose text half reads captions (`contrastive_weight`), and from whose vision half a new encoder of features starts; a folder
    with a config.json alone gives sizes of the text half."""
    projector_depth: int = 2
    """Linear layers of the projector from the vision tower into the language model, at least 2."""
    image_resolution: int = 256
    """Side in pixels of the square images that are drawn, and read through codes."""
    max_text_tokens: int = 128
    """Text budget of a row; the longest row is this plus the image codes plus 3."""
    task_token_first: bool = False
    """Put the task token before `<|im_start|>` instead of after it."""


@dataclass(frozen=True)
class SourceConfig:
    task: TaskName = MISSING
    """What the samples are for: `t2i` draw, `mmu` read, `lm` text."""
    format: Literal[
        "webdataset", "codes", "imagefolder", "captions", "conversations", "preferences", "prompts", "parquet"
    ] = MISSING
    """How the files are read; `codes` are shards that `unigen encode` makes, `imagefolder` folders of classes, `captions` JSON
    lines of {image, caption}, `preferences` pairs of images, `prompts` what a policy draws for rewards, without an image."""
    paths: list[str] = MISSING
    """Files, brace lists of shards, a .json list of shards, or folders; relative ones lie under `<data.root>/datasets`. Of
    records (captions, conversations, prompts) also a .json `{name: {annotation, root, repeat_time}}`."""
    weight: float = 1.0
    """Share of this source among the sources of its task."""
    num_samples: int | None = None
    """Length of an epoch in samples, for files that cannot be counted cheaply; records are counted where they
    are here."""
    take: list[str] = field(default_factory=list)
    """Records only, one entry per file: `NN%` or an absolute number of records, drawn at random; empty takes all."""
    first_files: int | None = None
    """Records only: of a folder the first so many files by name; null takes all."""
    images: str | None = None
    """Records that name images only: folder that their paths are relative to; null takes that of each file, or its `root`."""
    caption_key: str | None = None
    """Webdataset and codes only: key of the sample's .json that holds the caption; null reads the .txt."""
    conversations_key: str | None = None
    """Webdataset and codes only, reading: key of the sample's .json that holds a conversation in the place of a caption."""
    class_names: str | None = None
    """Imagefolder only: a .json `{folder: name}`, or a text file with the names of the sorted folders, one a line; null takes the
    folders' own names."""
    class_templates: str | None = None
    """Sentences about a class, each with one `{}`: `photo`, or a JSON file with a list of them. Null takes `photo` for an
    imagefolder; for webdataset and codes it says that the text is a caption, and no class's name."""
    skip_cjk: bool = False
    """Leave out captions with Chinese, Japanese or Korean characters (counted as `cjk_caption`)."""
    short_caption_prob: float = 0.0
    """Probability to keep only the first sentence of a caption (drawing only)."""
    caption_prompts: str = "short"
    """What asks for a caption (reading only): `short`, `long`, `sentence` (one alone), a JSON file with a list of prompts, or one
    prompt itself, of several words."""


@dataclass(frozen=True)
class DataConfig:
    root: str = "unigen_data"
    """Folder with `checkpoints/` and `datasets/`."""
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    """The mixture, by name."""
    lanes: int = 8
    """Independent streams that the data is dealt into; a multiple of ranks times workers. Part of what a run repeats."""
    num_workers: int = 4
    """Loader processes per rank; 0 reads in the training process."""
    prefetch_steps: int = 2
    """Global steps that each worker reads ahead."""
    shuffle_block: int = 1000
    """Samples that are shuffled together within a shard."""
    epoch_ends: Literal["max_size_cycle", "min_size"] = "max_size_cycle"
    """Where an epoch ends: when the largest task is through (smaller ones start again), or the smallest."""
    max_bad_fraction: float = 0.01
    """Share of unreadable samples past which a run stops. Those that are too long, and captions that `skip_cjk` leaves out, are
    counted beside them."""
    max_image_pixels: int = 64_000_000
    """Images of more pixels count as unreadable."""
    allow_pipe: bool = False
    """Let shards be `pipe:` shell commands. Only for lists of shards that you wrote yourself."""
    image_decoding: Literal["exact", "approximate_draft"] = "exact"
    """`approximate_draft` lets the JPEG decoder shrink images that go into codes: about 3 times faster, not the same pixels."""
    stage_to: str | None = None
    """A folder of the node's own disk, such as /local/scratch or $SLURM_TMPDIR: before training, one process per node copies
    all local tars, shards of codes and parquet files there (no single images and their records), and they are read there."""
    image_crops: int = 1
    """Squares of an image that goes into codes: 1 is the centre; of more, evenly spaced, every visit draws one."""


@dataclass(frozen=True)
class OptimizerConfig:
    name: Literal["adamw", "muon"] = "adamw"
    """`muon` trains matrices between hidden states by Muon, scaled to steps of AdamW's size, and all else by AdamW. It needs
    whole weights on a rank: one process or DDP."""
    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    muon_momentum: float = 0.95
    decay_norms_and_embeddings: bool = False
    """`true` decays everything but biases, as the released trainers did."""


@dataclass(frozen=True)
class ScheduleConfig:
    name: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 0
    """Linear from 0."""
    warmup_ratio: float = 0.0
    """The same as a share of all steps, rounded down, in the place of `warmup_steps`."""
    min_ratio: float = 0.0
    """Floor of the learning rate as a fraction of its peak."""


@dataclass(frozen=True)
class ValidationConfig:
    every: int = 0
    """Steps between sets of validation images; 0 draws none."""
    prompts: str | None = None
    """A text file with one prompt per line; null takes the short list that comes with the package."""
    guidance_scale: float = 2.0
    steps: int = 16


@dataclass(frozen=True)
class LoraConfig:
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | None = None
    """Regular expression over module names, or for UAE a side of it, `language_model` or `decoder`. Null takes all linear
    layers of the language model; for UAE those of the side that the stage trains."""


@dataclass(frozen=True)
class TrainingConfig:
    steps: int | None = None
    """Global steps; null derives them from `epochs` and the sizes of the sources."""
    epochs: float = 1.0
    samples_per_step: dict[str, int] = field(default_factory=dict)
    """Samples of each task in one global step, over all ranks."""
    loss_weights: dict[str, float] = field(default_factory=dict)
    """Factor of each task's mean loss; 1 where absent."""
    num_gpus: int = 8
    """GPUs that the recipe was written for; used by the dry run, any number that divides the lanes can run it."""
    tokens_per_row: int = 4096
    """Rows are packed from whole samples up to this many tokens."""
    rows_per_micro_batch: int = 1
    """Packed rows of one forward pass; the accumulation follows from it."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    enable_tf32: bool = True
    gradient_clipping: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    prompt_drop_prob: float = 0.1
    """Probability to train a drawing row without its caption, for classifier-free guidance."""
    mask_schedule: Literal["cosine", "linear", "square", "sigmoid"] = "cosine"
    min_mask_ratio: float = 0.0
    image_softmax: Literal["full", "codes"] = "full"
    """Softmax of the masked-token loss over the whole vocabulary, as the paper's code, or over the codes alone."""
    loss_kernel: Literal["chunked", "liger"] = "chunked"
    """Of pretrain and sft: `liger` takes liger-kernel's fused linear cross-entropy (extra `liger`) on CUDA, with one process or
    DDP."""
    recompute: Literal["none", "selective", "full", "auto"] = "none"
    """Activations computed again in the backward pass: none, all but matrix products and attention, whole layers; `auto` takes
    the first of these with which the memory formula fits the GPU."""
    ema_decay: float | None = None
    """Keep an exponential moving average of the weights in `checkpoint-<step>/ema_model`."""
    lora: LoraConfig | None = None
    """Train low-rank adapters of the language model instead of its weights."""
    freeze: list[str] = field(default_factory=list)
    """Regular expressions; parameters whose name one of them finds are not trained."""
    max_non_finite_steps: int = 10
    """Steps with a non-finite loss that are skipped before the run stops."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    compile: Literal["none", "blocks"] = "none"
    """`blocks` compiles the layers of the language model: about 1.1-1.2 times faster on a GPU after a minute of compiling."""


@dataclass(frozen=True)
class TokenizerStageConfig:
    """Losses of the stage `tokenizer`."""

    l1_weight: float = 1.0
    l2_weight: float = 1.0
    commitment_weight: float = 0.25
    entropy_weight: float = 0.1
    """Confident bits per position, all codes used over the batch (lookup-free quantisation only)."""
    codebook_weight: float = 1.0
    """Pull of the features on the rows of the codebook (residual quantisation only)."""
    enable_code_restart: bool = False
    """Put rows of the codebook that nothing takes any more where features are (residual quantisation only). It needs whole
    weights on a rank: one process or DDP."""
    contrastive_weight: float = 0.0
    """Match of an image's quantised features with its caption, as VILA-U trains (residual quantisation only)."""
    entropy_inverse_temperature: float = 10.0
    """Sharpness of a latent's distribution over codes (MAGVIT-v2, section 3.1)."""
    kl_weight: float = 1e-6
    """Pull of the latents towards the standard normal distribution (UAE's image auto-encoder only)."""
    perceptual_weight: float = 0.0
    """Distance between features of the first blocks of a torchvision VGG16, which is downloaded when used."""
    adversarial_weight: float = 0.0
    """Hinge loss of a small patch discriminator."""
    discriminator_learning_rate: float = 1e-4


@dataclass(frozen=True)
class VisionStageConfig:
    """The stage `vision`."""

    loss: Literal["sigmoid", "softmax"] = "sigmoid"
    """SigLIP's, in which equal captions match; or CLIP's, as open_clip (extra `uae`) has it: every image has one caption."""


@dataclass(frozen=True)
class DpoConfig:
    """Preference optimisation of the stage `dpo` (Rafailov et al., arXiv 2305.18290)."""

    beta: float = 0.1
    """How much a change of the log-ratio counts: low values let the model go far from the reference."""
    normalization: Literal["sum", "mean"] = "sum"
    """The log-probability of an image: over its masked codes, their sum (as released) or their mean."""
    pairing: Literal["shared", "released"] = "shared"
    """`shared` hides the same codes of both images of a pair, and drops the prompt of both or of none; `released` draws for
    each image on its own."""
    reference: Literal["copy", "adapter_off", "precomputed"] = "copy"
    """The model that is compared with: a second copy of `model.pretrained`, the trained one with its `training.lora` switched
    off, or its log-probabilities of all visits, computed before the first step into `<experiment.output_dir>/reference`."""
    sft_weight: float = 0.0
    """Factor of the masked-token loss on the chosen images, which is added to the loss."""


@dataclass(frozen=True)
class Config:
    stage: StageName = MISSING
    """What to train, and by which objective."""
    experiment: ExperimentConfig = field(default_factory=ExperimentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    tokenizer_stage: TokenizerStageConfig = field(default_factory=TokenizerStageConfig)
    vision_stage: VisionStageConfig = field(default_factory=VisionStageConfig)
    dpo: DpoConfig = field(default_factory=DpoConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    longcap: LongcapConfig = field(default_factory=LongcapConfig)
    coldstart: ColdstartConfig = field(default_factory=ColdstartConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """How `unigen evaluate --config` evaluates what this configuration trains; training does not read it."""

    def __post_init__(self) -> None:
        from unigen.config.checks import check  # which speaks of this class

        check(self)
