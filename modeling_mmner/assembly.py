"""Recipe -> processor and model: tokenizers, configs, and the pretrained weights of the towers."""

from collections.abc import Iterable
from typing import Any

import timm
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .configuration_mmner import MMNERConfig, SentenceVector
from .modeling_mmner import MMNERForTokenClassification
from .processing_mmner import MMNERProcessor, special_tokens
from .recipes import Recipe
from .text_mmner import without_pooler


def build_processor(recipe: Recipe, *, labels: list[str], posts: Iterable[list[str]]) -> MMNERProcessor:
    """The processor of a recipe.

    Args:
        recipe: names a pretrained text encoder, or asks for one from scratch.
        labels: the BIO label names in id order.
        posts: tokens of the training posts, on which the tokenizer of an encoder from scratch is trained.
    """
    if recipe.text_encoder is not None:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(recipe.text_encoder, add_prefix_space=True)
    else:
        tokenizer = train_tokenizer(posts, recipe.vocabulary_size)
    sizes = [tower.get("image_size", 224) for tower in recipe.vision_towers]
    return MMNERProcessor(tokenizer, labels=labels, image_size=max(sizes, default=None))


def train_tokenizer(posts: Iterable[list[str]], vocabulary_size: int) -> PreTrainedTokenizerBase:
    """A cased BPE tokenizer with [CLS] and [SEP], trained on words.

    Not WordPiece, whose training breaks ties at random: the same posts would not give the same vocabulary twice.
    """
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary_size, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator((word for post in posts for word in post), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, specials.index(name)) for name in ("[CLS]", "[SEP]")]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, specials, strict=True)))


def build_config(recipe: Recipe, processor: MMNERProcessor, *, sentence_vector: SentenceVector = "mean") -> MMNERConfig:
    """The config of a recipe's model, in the vocabulary and labels of its processor."""
    prefix, suffix = special_tokens(processor.tokenizer)
    if recipe.text_encoder is not None:
        text_config = AutoConfig.from_pretrained(recipe.text_encoder)
    else:
        settings = {"vocab_size": len(processor.tokenizer), "pad_token_id": processor.tokenizer.pad_token_id}
        text_config = AutoConfig.for_model(**recipe.text_config, **settings)
    return MMNERConfig(
        text_config=text_config,
        text_prefix_tokens=len(prefix),
        text_suffix_tokens=len(suffix),
        vision_towers=[_tower_settings(tower) for tower in recipe.vision_towers],
        fusion=recipe.fusion,
        fusion_heads=recipe.fusion_heads,
        dropout=recipe.dropout,
        objectives=recipe.objectives,
        contrastive_temperature=recipe.contrastive_temperature,
        contrastive_image_share=recipe.contrastive_image_share,
        alignment_temperature=recipe.alignment_temperature,
        sentence_vector=sentence_vector,
        id2label=dict(enumerate(processor.labels)),
    )


def build_model(recipe: Recipe, processor: MMNERProcessor) -> MMNERForTokenClassification:
    """The recipe's model with its towers' pretrained weights; what is not pretrained starts at random from torch's seed.

    The pretrained weights are put in after the model is made, since a model's own initialisation would wipe them.
    """
    has_pooler = "alignment" in recipe.objectives and recipe.text_encoder is not None and _has_trained_pooler(recipe.text_encoder)
    model = MMNERForTokenClassification(build_config(recipe, processor, sentence_vector="pooler" if has_pooler else "mean"))
    if recipe.text_encoder is not None:
        options = {} if has_pooler else without_pooler(model.config.text_config)
        pretrained = AutoModel.from_pretrained(recipe.text_encoder, dtype=torch.float32, **options)
        model.text_tower.encoder.load_state_dict(pretrained.state_dict())
    for tower, settings in zip(model.vision_towers, recipe.vision_towers, strict=True):
        if _is_pretrained(settings):
            tower.backbone.timm_model.load_state_dict(_pretrained_backbone(settings).state_dict())
    return model


def _has_trained_pooler(text_encoder: str) -> bool:
    """Whether a checkpoint holds the weights of a pooler; most were saved without."""
    pretrained, loading = AutoModel.from_pretrained(text_encoder, output_loading_info=True)
    return getattr(pretrained, "pooler", None) is not None and not any("pooler" in key for key in loading["missing_keys"])


def pretrained_parts(model: MMNERForTokenClassification, recipe: Recipe) -> list[torch.nn.Module]:
    """The towers that came with pretrained weights, which learn at their own rate."""
    text = [model.text_tower.encoder] if recipe.text_encoder is not None else []
    towers = zip(model.vision_towers, recipe.vision_towers, strict=True)
    return text + [tower.backbone for tower, settings in towers if _is_pretrained(settings)]


def _is_pretrained(settings: dict[str, Any]) -> bool:
    return bool(settings.get("checkpoint")) or settings.get("pretrained", True)


def _backbone_name(settings: dict[str, Any]) -> str:
    """timm's name without the Hub's ``timm/``."""
    return settings["backbone"].removeprefix("timm/").removeprefix("hf-hub:timm/")


def _tower_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """A `VisionTowerConfig` dict: the backbone with its full tag, normalised as its weights expect."""
    name = _backbone_name(settings)
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None:
        if not timm.is_model(name.partition(".")[0]):
            raise ValueError(f"vision backbone {settings['backbone']!r}: expected a model that timm has, found none of this name")
        normalisation: dict[str, Any] = {}
    else:
        # A name without its tag means another set of weights as soon as timm changes its default.
        name = f"{cfg.architecture}.{cfg.tag}" if cfg.tag else name
        normalisation = {"mean": list(cfg.mean), "std": list(cfg.std)}
    own = {key: value for key, value in settings.items() if key in ("frozen", "pooled", "image_size", "backbone_args")}
    return {"backbone": name} | normalisation | own


def _pretrained_backbone(settings: dict[str, Any]) -> torch.nn.Module:
    """The timm model with its pretrained weights, from a file or from the Hub."""
    checkpoint = settings.get("checkpoint")
    overlay: dict[str, Any] = {"pretrained_cfg_overlay": {"file": checkpoint}} if checkpoint else {}
    return timm.create_model(
        _backbone_name(settings), pretrained=True, num_classes=0, **(settings.get("backbone_args") or {}), **overlay
    )
