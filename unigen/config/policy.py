# SPDX-License-Identifier: Apache-2.0
"""The stages that learn from rewards: how groups are drawn, what they are scored by, and how the policy follows.

The paper of UAE (arXiv 2509.09666) does not say its settings: where a default is not known of it, it is Flow-GRPO's (arXiv
2505.05470) or the common one, and says so.
"""

from dataclasses import dataclass, field
from typing import Literal

EncoderKind = Literal["clip", "siglip", "longclip", "dinov2", "dinov3"]
RewardKind = Literal["clip", "siglip", "longclip", "dinov2", "dinov3", "detector", "callable", "endpoint"]
PUBLISHED_ENCODERS: dict[str, str] = {
    "clip": "clip-vit-large-patch14",
    "siglip": "siglip-so400m-patch14-384",
    "longclip": "LongCLIP-L",
    "dinov2": "dinov2-large",
    "dinov3": "dinov3-vitl16-pretrain-lvd1689m",
}
"""Folders under `<data.root>/checkpoints`; `clip`, `longclip`, `dinov2` and `dinov3` are those of Unified-Bench."""
KINDS_WITH_TEXT: tuple[RewardKind, ...] = ("clip", "siglip")
"""Encoders with a text half, which say how well an image fits words."""


@dataclass(frozen=True)
class EncoderConfig:
    """What gives the features of an image."""

    kind: EncoderKind = "clip"
    """As of a reward."""
    model: str | None = None
    """A folder, looked up under `<data.root>/checkpoints`; null takes the published one of the kind."""


@dataclass(frozen=True)
class RewardConfig:
    """One term of a reward."""

    kind: RewardKind = "clip"
    """An encoder whose features are compared by their cosine (`clip` of open_clip or transformers, told apart by what the folder
    holds, `siglip`, `longclip`, `dinov2`, `dinov3`), the `detector` of the world of shapes, a Python function, or a server."""
    weight: float = 1.0
    """Factor of this term; the reward is their sum. A term of weight 0 is only logged."""
    model: str | None = None
    """Encoders alone: a folder, looked up under `<data.root>/checkpoints`; null takes the published one of the kind."""
    compares: Literal["original", "prompt"] = "original"
    """Encoders: what an image is compared with, the image that was described or (with a text half: `clip`, `siglip`) the words
    that it was drawn from. `endpoint`: whether the originals are sent too."""
    strict: bool = False
    """`detector` alone: 1 where an image is all that its prompt asks for, else 0, instead of the share of it that is right."""
    function: str | None = None
    """`callable` alone: `module:name` of a function that takes a list of `unigen.rewards.Judged`, and gives as many numbers."""
    url: str | None = None
    """`endpoint` alone: where images are posted to; `unigen.rewards.endpoint_reward` says what is sent and what is answered."""
    batch_size: int = 64
    """Images that are scored at once."""
    timeout_seconds: float = 120.0
    """`endpoint` alone: how long an answer may take."""


@dataclass(frozen=True)
class FlowRolloutConfig:
    """How a policy that draws along a flow (UAE's decoder) is rolled out. Defaults are those of Flow-GRPO."""

    prompts: Literal["written", "given"] = "written"
    """What is drawn: what the frozen language model writes of an image (by `grpo.caption`), or the captions or prompts of the
    sources."""
    steps: int = 10
    guidance_scale: float = 4.5
    kind: Literal["sde", "cps"] = "sde"
    """The noise of a step: that of Flow-GRPO, or coefficient-preserving sampling (then a `noise_level` of 0.8 is usual)."""
    noise_level: float = 0.7
    trained_steps: int | None = None
    """How many of the steps are noisy and trained on; null takes all but the last, whose noise is next to nothing. 1 or 2 are
    Flow-GRPO-Fast."""
    window: Literal["start", "random"] = "random"
    """Where fewer trained steps lie: at the start, or anywhere in the first half, drawn for each global step."""


@dataclass(frozen=True)
class MaskRolloutConfig:
    """How a policy that draws by masked tokens (UniGen) is rolled out. Defaults are those of UniGen-1.5 (arXiv 2511.14760)."""

    steps: int = 16
    guidance_scale: float = 0.0
    """Above 0 the probabilities are those of the guided logits."""
    temperature: float = 1.0
    """Of the noise on the confidences by which codes are kept; codes themselves are drawn at temperature 1."""
    batch_size: int = 64
    """Images that are drawn at once."""

    @property
    def has_guidance(self) -> bool:
        """Whether a row without the prompt goes beside each row; a scale of 1 is that of the prompt alone, too."""
        return self.guidance_scale not in (0.0, 1.0)


@dataclass(frozen=True)
class CaptionRolloutConfig:
    """How captions are written and redrawn in the stage grpo_understanding; and written in grpo_generation of UAE."""

    max_new_tokens: int = 512
    temperature: float = 1.0
    """Not known of the paper. At 1 the probabilities are the model's own."""
    batch_size: int = 16
    """Captions that are written, and drawn, at once."""
    draw_steps: int = 10
    """Steps in which the frozen decoder draws a caption. Not known of the paper; 10 as in its cold start."""
    guidance_scale: float = 5.0
    """Of those drawings, as in the cold start."""
    same_noise: bool = True
    """The captions of one image are drawn from the same noise, so that their rewards differ by their words alone; `false` gives
    each its own. Not known of the paper."""


@dataclass(frozen=True)
class GrpoConfig:
    """Group-relative policy optimisation (Shao et al., arXiv 2402.03300) of the stages grpo_understanding, grpo_generation."""

    rewards: dict[str, RewardConfig] = field(default_factory=dict)
    """By name; the names are those of the logs."""
    group_size: int = 8
    """Rollouts of each prompt or image. Not known of the paper; 8 of UniGen-1.5 (Flow-GRPO takes 8 to 24)."""
    updates_per_rollout: int = 1
    """Updates of the policy from the rollouts of one global step; the first is on the policy that made them."""
    clip_range: float = 1e-4
    """The ratio of probabilities counts up to 1 +- this: tiny where the log-probability is a mean over a latent, as Flow-GRPO's;
    0.2 is usual for tokens."""
    kl_weight: float = 0.0
    """Factor of the divergence from the reference, the model without its adapter."""
    kl_form: Literal["exact", "released"] = "exact"
    """Flow alone: divergence of the two normal distributions, or without the length of the step in it, as Flow-GRPO's code."""
    advantage_std: Literal["group", "global"] = "global"
    """What advantages are divided by: the deviation of the group's rewards, or that of all rewards of the step."""
    max_advantage: float = 5.0
    """Advantages are cut to this size."""
    refill_rounds: int = 1
    """How often a group without spread is drawn anew, with other seeds, before it is left out."""
    shuffle_advantages: bool = False
    """Deal the advantages of each group out at random among its members: a control, which must learn nothing."""
    flow: FlowRolloutConfig = field(default_factory=FlowRolloutConfig)
    masked: MaskRolloutConfig = field(default_factory=MaskRolloutConfig)
    caption: CaptionRolloutConfig = field(default_factory=CaptionRolloutConfig)


@dataclass(frozen=True)
class LongcapConfig:
    """Pre-training of UAE's decoder by flow matching on long captions, the language model frozen."""

    timestep_mean: float = 0.0
    timestep_std: float = 1.0
    """Of the normal distribution whose sigmoid is the time. The published ones of Stable Diffusion 3."""
    weighting: Literal["none", "cosmap", "sigma_sqrt"] = "none"
    """How much each time counts."""
    train_projector: bool = True
    """The projector learns beside the decoder; not known of the paper."""


@dataclass(frozen=True)
class ColdstartConfig:
    """UAE's cold start: 1 - cosine between features of an image and of its reconstruction, through a short sampling."""

    steps: int = 10
    guidance_scale: float = 5.0
    resolution: int | None = None
    """Side in pixels of the reconstruction; null takes the model's (512 in the release)."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """What gives the features; CLIP ViT-L/14 in the release."""
    checkpoint_steps: bool = True
    """Compute each sampling step again in the backward pass: memory of one step instead of all."""
