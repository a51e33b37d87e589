# SPDX-License-Identifier: Apache-2.0
"""The public weights and data that configurations name: where they come from, their licence, and the folder they go to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from unigen.config.folders import LONG_CLIP_WEIGHTS
from unigen.config.policy import PUBLISHED_ENCODERS, EncoderConfig, RewardConfig
from unigen.config.schema import Config
from unigen.errors import ConfigError

TRANSFORMERS_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "LICENSE*", "README.md")
DIFFUSION_PARTS = ("transformer", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


@dataclass(frozen=True)
class Asset:
    """One repository of the Hugging Face hub. `name` is also its folder's name under `<data.root>/{checkpoints,datasets}`."""

    name: str
    repository: str
    kind: Literal["model", "dataset"]
    revision: str | None
    """A commit of the repository, never a branch, which may move; null where none is known: then the newest is fetched."""
    licence: str
    patterns: tuple[str, ...] = ()
    """Files to fetch, as glob patterns; empty fetches all."""
    sha256: Mapping[str, str] = field(default_factory=dict, hash=False)
    """File -> SHA-256, for weights on which published numbers rest."""

    @property
    def place(self) -> str:
        """The folder relative to `<data.root>`."""
        return f"{'checkpoints' if self.kind == 'model' else 'datasets'}/{self.name}"

    @property
    def page(self) -> str:
        """Where its card and licence can be read."""
        return f"https://huggingface.co/{'datasets/' if self.kind == 'dataset' else ''}{self.repository}"


def _transformers(name: str, repository: str, revision: str) -> Asset:
    return Asset(name, repository, "model", revision, "Apache-2.0", TRANSFORMERS_FILES)


def _stable_diffusion(size: str) -> Asset:
    """Without T5 and without the files of other programs."""
    name = f"stable-diffusion-3.5-{size}"
    files = tuple(f"{part}/*" for part in DIFFUSION_PARTS)
    return Asset(name, f"stabilityai/{name}", "model", None, "Stability AI Community License; gated", files)


ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        _transformers("Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B", "060db6499f32faf8b98477b0a26969ef7d8b9987"),
        _transformers(
            "Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "7ae557604adf67be50417f59c2c2f167def9a775"
        ),
        _transformers(
            "Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct", "989aa7980e4cf806f80c7fef2b1adb7bc71aa306"
        ),
        _transformers("Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct", "a09a35458c702b33eeacc393d103063234e8bc28"),
        _transformers(
            "siglip-so400m-patch14-384",
            "google/siglip-so400m-patch14-384",
            "9fdffc58afc957d1a03a25b10dba0329ab15c2a3",
        ),
        _transformers(
            "siglip2-so400m-patch16-naflex",
            "google/siglip2-so400m-patch16-naflex",
            "cc24074f717b612951c2dead130904ab9b65a81e",
        ),
        Asset(
            "clip-vit-large-patch14",
            "openai/clip-vit-large-patch14",
            "model",
            "32bd64288804d66eefd0ccbe215aa642df71cc41",
            "see its page",
            TRANSFORMERS_FILES,
            {"model.safetensors": "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb"},
        ),
        Asset(
            "dinov2-large",
            "facebook/dinov2-large",
            "model",
            "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
            "Apache-2.0",
            TRANSFORMERS_FILES,
            {"model.safetensors": "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23"},
        ),
        Asset(
            "dinov3-vitl16-pretrain-lvd1689m",
            "facebook/dinov3-vitl16-pretrain-lvd1689m",
            "model",
            "ea8dc2863c51be0a264bab82070e3e8836b02d51",
            "DINOv3 License; gated",
            TRANSFORMERS_FILES,
            {"model.safetensors": "dcb2e45127cccbf1601e5f42fef165eea275c8e5213197e8dcf3f48822718179"},
        ),
        Asset("LongCLIP-L", "BeichenZhang/LongCLIP-L", "model", None, "see its page", (LONG_CLIP_WEIGHTS[0],)),
        Asset("magvitv2", "showlab/magvitv2", "model", "5c3fa78f8b3523347c5cd1a4c97f3c4e96f33d5d", "see its page"),
        Asset("vila-u-7b-256", "mit-han-lab/vila-u-7b-256", "model", None, "see its page", ("vision_tower/*",)),
        Asset("UAE", "zhiyuanyan1/UAE", "model", None, "see its page"),
        Asset(
            "Qwen2.5-VL-3B-Instruct",
            "Qwen/Qwen2.5-VL-3B-Instruct",
            "model",
            "66285546d2b821cf421d4f5eb2576359d3770cd3",
            "Qwen Research License",
            TRANSFORMERS_FILES,
        ),
        _stable_diffusion("large"),
        _stable_diffusion("medium"),
        Asset(
            "falcon-refinedweb",
            "tiiuae/falcon-refinedweb",
            "dataset",
            "c735840575b629292b41da8dde11dcd523d4f91c",
            "ODC-By-1.0",
            ("data/*.parquet", "README.md"),
        ),
    )
}


@dataclass(frozen=True)
class Wanted:
    """Something that a configuration reads from disk."""

    key: str
    """The configuration's key that names it."""
    name: str
    """Its value: a folder, a file or a brace list."""
    kind: Literal["weights", "config", "tokenizer", "dataset"]
    """What must be there: a model with its weights, a config.json alone, a text tokenizer, or data."""
    maker: str = ""
    """The command that makes it of other things, where there is one."""

    @property
    def asset(self) -> Asset | None:
        """The known public thing that it is, or lies in."""
        path = Path(self.name)
        place = "datasets" if self.kind == "dataset" else "checkpoints"
        known = [ASSETS[part] for part in path.parts if part in ASSETS and ASSETS[part].place.startswith(place)]
        return known[0] if known and not path.is_absolute() else None


def wanted_by(config: Config) -> list[Wanted]:
    """All checkpoints and datasets that training with `config` will read, in the order of its keys."""
    return [*_wanted_models(config), *_wanted_encoders(config), *_wanted_data(config)]


def _wanted_models(config: Config) -> list[Wanted]:
    model = config.model
    if model.family == "uae":
        return _wanted_by_uae(config)
    if config.stage in ("tokenizer", "vision"):
        names = {"model.image_tokenizer": model.image_tokenizer} if config.stage == "tokenizer" else {}
        names |= {"model.vision_tower": model.vision_tower} if model.vision_tower else {}
        return [Wanted(key, name, "config") for key, name in names.items()]
    fresh = model.pretrained is None and model.initialization == "pretrained"
    wanted = [Wanted("model.pretrained", model.pretrained, "weights")] if model.pretrained else []
    wanted.append(Wanted("model.language_model", model.language_model, "weights" if fresh else "config"))
    if model.text_tokenizer or not fresh:  # a folder with the language model's weights has its tokenizer too
        wanted.append(Wanted("model.text_tokenizer", model.text_tokenizer or model.language_model, "tokenizer"))
    wanted.append(Wanted("model.image_tokenizer", model.image_tokenizer, "weights"))
    if model.vision_tower:
        wanted.append(Wanted("model.vision_tower", model.vision_tower, "weights"))
    return wanted


def _wanted_by_uae(config: Config) -> list[Wanted]:
    model, parts = config.model, config.model.uae
    is_vae, draws = config.stage == "tokenizer", model.initialization == "random"
    named = {"model.uae.decoder": parts.decoder, "model.uae.vae": parts.vae}
    wanted = [Wanted(key, name, "config" if is_vae and draws else "weights") for key, name in named.items() if name]
    if model.pretrained:
        wanted.append(Wanted("model.pretrained", model.pretrained, "weights"))
    elif not draws:
        part = "vae" if is_vae else "transformer"
        wanted.append(Wanted("model.uae.diffusion", f"{parts.diffusion}/{part}", "weights"))
    if not is_vae and not model.pretrained:
        wanted.append(Wanted("model.language_model", model.language_model, "config" if draws else "weights"))
    if not is_vae and model.text_tokenizer:
        wanted.append(Wanted("model.text_tokenizer", model.text_tokenizer, "tokenizer", "unigen data shapes-processor"))
    return wanted


def _wanted_encoders(config: Config) -> list[Wanted]:
    """What rewards and the cold start compare images by."""
    named: dict[str, RewardConfig | EncoderConfig] = {
        f"grpo.rewards.{name}": reward for name, reward in config.grpo.rewards.items()
    }
    if config.stage == "coldstart":
        named["coldstart.encoder"] = config.coldstart.encoder
    return [
        Wanted(f"{key}.model", one.model or PUBLISHED_ENCODERS[one.kind], "weights")
        for key, one in named.items()
        if one.kind in PUBLISHED_ENCODERS
    ]


def _wanted_data(config: Config) -> list[Wanted]:
    wanted = []
    for name, source in config.data.sources.items():
        if config.training.samples_per_step.get(source.task, 0) <= 0:
            continue
        maker = "unigen annotate pairs" if source.format == "preferences" else ""
        wanted += [Wanted(f"data.sources.{name}.paths", path, "dataset", maker) for path in source.paths]
        beside = {"images": source.images, "class_names": source.class_names}
        wanted += [
            Wanted(f"data.sources.{name}.{key}", path, "dataset") for key, path in beside.items() if path is not None
        ]
    return wanted


def find_assets(names: Sequence[str]) -> list[Asset]:
    """The assets of these names.

    Raises:
        ConfigError: a name that is not in the table, with the nearest one that is.
    """
    for name in names:
        if name not in ASSETS:
            near = get_close_matches(name, ASSETS, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"there is nothing to download under the name {name}{hint} Known: {', '.join(ASSETS)}")
    return [ASSETS[name] for name in dict.fromkeys(names)]
