"""Recipe -> processor and model: tokenizers, configs, and the pretrained weights of the towers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import cached_file

from dataset_scripts.builders.builder import short_hash

from ..files import noted_sha256, reason
from ..model.configuration_mmner import MMNERConfig
from ..model.modeling_mmner import MMNERForTokenClassification
from ..model.parts_mmner import SETTINGS, needs_of
from ..model.processing_mmner import MMNERProcessor
from ..model.text_mmner import window_of, without_pooler
from ..model.vision_mmner import VisionTower
from .recipes import Recipe, TowerSettings
from .vocabulary import check_vectors, load_vectors, make_word_tokenizer, train_tokenizer, word_vocabulary

_ENCODER_FILES = ("config.json", "model*.safetensors*", "*token*", "*vocab*", "merges.txt", "*.model")


def build_processor(recipe: Recipe, *, labels: list[str], posts: Iterable[list[str]]) -> MMNERProcessor:
    """The processor of a recipe; its tokenizer's `model_max_length` is the text encoder's window.

    Args:
        labels: the BIO label names in id order.
        posts: tokens of the training posts, on which the tokenizer of an encoder from scratch is trained.
    """
    settings = recipe.model
    if not settings.text_tower.has_encoder:
        tokenizer = make_word_tokenizer(posts, size=settings.vocabulary_size, vectors=settings.word_vectors)
    elif (name := settings.text_encoder) is not None:
        tokenizer = AutoTokenizer.from_pretrained(name, add_prefix_space=True, trust_remote_code=False)
    else:
        tokenizer = train_tokenizer(posts, settings.vocabulary_size)
    text_config = _text_config(recipe, tokenizer)
    if text_config is not None and (window := window_of(text_config)) is not None:
        tokenizer.model_max_length = min(window, tokenizer.model_max_length)
    sizes = [_tower_config(tower)["image_size"] for tower in settings.towers]
    return MMNERProcessor(
        tokenizer,
        labels=labels,
        image_size=max(sizes, default=None),
        word_rule=recipe.corpus.word_rule,
        word_bytes=settings.word_bytes if settings.text_tower.reads_characters else None,
        context_window=settings.context_window if recipe.corpus.context is not None else None,
    )


def build_config(recipe: Recipe, processor: MMNERProcessor, *, sentence_vector: str = "mean") -> MMNERConfig:
    """The config of a recipe's model, in the vocabulary and labels of its processor.

    Args:
        sentence_vector: for a recipe that does not say it.
    """
    model, has_encoder = recipe.model, recipe.model.text_tower.has_encoder
    own = {
        "text_config": _text_config(recipe, processor.tokenizer),
        "word_vocabulary": None if has_encoder else word_vocabulary(processor.tokenizer),
        "vision_towers": [_tower_config(tower) for tower in model.towers],
        "id2label": dict(enumerate(processor.labels)),
    }
    return MMNERConfig(**{"sentence_vector": sentence_vector} | model.config | own)


def _text_config(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig | None:
    if not recipe.model.text_tower.has_encoder:
        return None
    if recipe.model.text_encoder is not None:
        return AutoConfig.from_pretrained(recipe.model.text_encoder, trust_remote_code=False)
    vocabulary = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    return AutoConfig.for_model(**recipe.model.config.get("text_config", {}) | vocabulary)


def check_model(recipe: Recipe) -> None:
    """Check that the recipe's parts fit together, before anything is read or downloaded.

    Raises:
        ValueError, TypeError: they do not, or no text encoder is named.
    """
    config = dict(recipe.model.config)
    if (vectors := recipe.model.word_vectors) is not None:
        check_vectors(vectors, width=config.get("word_width", SETTINGS["word_width"].default))
    if not recipe.model.text_tower.has_encoder:
        config["word_vocabulary"] = {"size": 2, "unknown": 1, "rare": 2}  # of no word yet
    elif recipe.model.text_encoder is None and "model_type" not in config.get("text_config", {}):
        raise ValueError("text_encoder: expected a model id, a folder or a text_config, found neither")
    else:
        config.pop("text_config", None)
    towers = recipe.model.towers
    given = [{"backbone": tower.model_name, "backbone_args": tower.backbone_args} for tower in towers]
    MMNERConfig(**config, vision_towers=given)
    for path in filter(None, (tower.checkpoint for tower in towers)):
        check_checkpoint(path)


def build_model(
    recipe: Recipe, processor: MMNERProcessor, *, with_frozen: bool = True
) -> MMNERForTokenClassification:
    """The recipe's model; what has no pretrained weights starts at random from torch's seed.

    Those come in after the model is made: its own initialisation would wipe them.

    Args:
        with_frozen: False leaves those of frozen picture encoders to `load_tower`.
    """
    settings, encoder, has_pooler = recipe.model, None, False
    if (name := settings.text_encoder) is not None:
        asked = settings.config.get("sentence_vector") == "pooler"
        reads_sentence = "sentence" in needs_of(settings.fusion, settings.objectives)
        encoder, has_pooler = _pretrained_encoder(name, with_pooler=asked or reads_sentence)
        if asked and not has_pooler:
            wanted = "expected an encoder with a trained pooler"
            raise ValueError(f"sentence_vector: {wanted}, found none in {name}; use 'mean'")
    config = build_config(recipe, processor, sentence_vector="pooler" if has_pooler else "mean")
    model = MMNERForTokenClassification(config)
    if encoder is not None:
        _copy_weights(encoder, model.text_tower.encoder)
    if settings.word_vectors is not None:
        load_vectors(model.text_tower.encoder, processor.tokenizer, settings.word_vectors)
    for tower, source in zip(model.vision_towers, settings.towers, strict=True):
        if source.has_weights and (with_frozen or not source.frozen):
            load_tower(tower, source)
    return model


def _copy_weights(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Put a module's weights into one that has the same layers, or fewer."""
    wanted = target.state_dict().keys()
    target.load_state_dict({name: weight for name, weight in source.state_dict().items() if name in wanted})


def load_tower(tower: VisionTower, settings: TowerSettings) -> None:
    """Put the pretrained weights into a picture encoder; one that was let go of is made again.

    Raises:
        ValueError: the file of weights is no safetensors, or not of this model.
    """
    # timm draws weights before it reads them: a run's numbers must not depend on that.
    with torch.random.fork_rng(devices=[]):
        if tower.backbone is None:
            tower.backbone = VisionTower(tower.config).backbone
        options: dict[str, Any] = dict(settings.backbone_args or {})
        if settings.checkpoint:
            check_checkpoint(settings.checkpoint)
            options["pretrained_cfg_overlay"] = {"file": settings.checkpoint}
        pretrained = timm.create_model(settings.model_name, pretrained=True, num_classes=0, **options)
        _copy_weights(pretrained, tower.backbone.timm_model)


def weights_file(settings: TowerSettings) -> Path | None:
    """The file that a picture encoder's weights come from, one of the Hub's in its cache, if there is one."""
    path: Any = settings.checkpoint
    if path is None and settings.pretrained and (cfg := timm.get_pretrained_cfg(settings.model_name)):
        path = cfg.hf_hub_id and try_to_load_from_cache(cfg.hf_hub_id, "model.safetensors")
    return Path(path) if isinstance(path, str) and Path(path).is_file() else None


def content_of_names(recipe: Recipe) -> dict[str, str]:
    """A hash of the files behind each name of weights or vectors: names stay, contents change."""
    model, files = recipe.model, dict[str, list[Path]]()
    if model.text_encoder is not None:
        folder = Path(str(cached_file(model.text_encoder, "config.json", local_files_only=True))).parent
        files["text_encoder"] = sorted({path for kind in _ENCODER_FILES for path in folder.glob(kind)})
    if model.word_vectors is not None:
        files["word_vectors"] = [Path(model.word_vectors)]
    for number, tower in enumerate(model.towers):
        files[f"vision_towers[{number}]"] = [*filter(None, [weights_file(tower)])]
    found = {name: [(path.name, noted_sha256(path)) for path in paths] for name, paths in files.items()}
    return {f"content of {name}": short_hash(hashes) for name, hashes in found.items()}


def check_checkpoint(path: str) -> None:
    """Raises ValueError for a file that can do more than hold weights: for all but safetensors."""
    if not path.endswith(".safetensors") or not Path(path).is_file():
        raise ValueError(
            f"vision_checkpoint {path}: expected a file of weights in safetensors, found another or none."
            " Files of torch are pickles, which can run programs: convert one that you trust by"
            " safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors')"
        )
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        found = f"found {reason(error, path)}"
        raise ValueError(f"vision_checkpoint {path}: expected safetensors, {found}") from error


def _pretrained_encoder(name: str, *, with_pooler: bool) -> tuple[torch.nn.Module, bool]:
    """A text encoder with its weights, and whether a trained pooler is among them, as it often is not.

    Raises:
        ValueError: it cannot be read, or its weights are no safetensors.
    """
    # Code and pickles of others would run what their maker likes.
    options: dict[str, Any] = {"trust_remote_code": False, "use_safetensors": True, "dtype": torch.float32}
    try:
        if not with_pooler:
            options |= without_pooler(AutoConfig.from_pretrained(name, trust_remote_code=False))
        encoder, loading = AutoModel.from_pretrained(name, output_loading_info=True, **options)
    except Exception as error:  # a damaged file leads to anything
        raise ValueError(
            f"text_encoder {name}: expected the folder or Hub id of an encoder of transformers with weights"
            f" in safetensors, found {reason(error, name)}"
        ) from error
    is_missing = any("pooler" in key for key in loading["missing_keys"])
    return encoder, with_pooler and getattr(encoder, "pooler", None) is not None and not is_missing


def pretrained_parts(model: MMNERForTokenClassification, recipe: Recipe) -> list[torch.nn.Module]:
    """The towers that came with pretrained weights, which learn at their own rate."""
    text = [model.text_tower.encoder] if recipe.model.text_encoder is not None else []
    towers = zip(model.vision_towers, recipe.model.towers, strict=True)
    return text + [tower.backbone for tower, given in towers if given.has_weights and not given.frozen]


def _tower_config(settings: TowerSettings) -> dict[str, Any]:
    """A `VisionTowerConfig` dict: the backbone with its full tag, and what timm says of its pictures.

    Raises:
        ValueError: timm has no such model, or the model takes no pictures of the wanted size.
    """
    name, arguments = settings.model_name, settings.backbone_args or {}
    own = {"frozen": settings.frozen, "pooled": settings.pooled, "backbone_args": settings.backbone_args}
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None:
        if not timm.is_model(name.partition(".")[0]):
            raise ValueError(f"vision backbone {settings.backbone!r}: expected a model of timm, found none")
        return {"backbone": name, "image_size": settings.image_size or 224} | own
    expected = arguments.get("img_size", cfg.input_size[-1])
    size = settings.image_size or expected
    if cfg.fixed_input_size and size != expected:
        raise ValueError(
            f"vision backbone {settings.backbone!r}: expected image_size {expected}, the only one that it"
            f" takes, found {size}; leave image_size out, or give another by backbone_args: {{img_size: ...}}"
        )
    # A name without its tag means another set of weights as soon as timm changes its default.
    tagged = f"{cfg.architecture}.{cfg.tag}" if cfg.tag else name
    return {"backbone": tagged, "image_size": size, "mean": list(cfg.mean), "std": list(cfg.std)} | own
