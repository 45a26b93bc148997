"""`MMNERForTokenClassification`: the parts wired together. The maths is in the modules of the parts.

Notation: B batch, K windows of a text, S sub-tokens of a window, W words, Y bytes of a word, L labels, N
pictures a post, M regions of a picture, R = N * M regions of a post, C vision channels.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForTokenClassification, PreTrainedModel, initialization
from transformers.utils import ModelOutput, can_return_tuple, logging

from .configuration_mmner import MMNERConfig
from .context_mmner import Context, Regions, TextStates, Widths
from .crf_mmner import CRF
from .effects_mmner import PICTURE_INPUTS
from .fusion_mmner import Fusion
from .heads_mmner import Head, check_reading
from .labels_mmner import check_labels
from .objectives_mmner import Objective
from .parts_mmner import HEADS, MAIN_HEAD, TEXT_TOWERS
from .pipeline_mmner import TASKS, MultimodalNERPipeline
from .text_mmner import TextTower
from .vision_mmner import VisionTower

_logger = logging.get_logger(__name__)


@dataclass
class MMNEROutput(ModelOutput):
    """Output of `MMNERForTokenClassification`.

    Attributes:
        loss: scalar, the weighted sum of the losses below; with labels only.
        losses: scalars before weighting, by the name of the part; those that were computed.
        logits: (B, W, L) emissions of the CRF.
        tags: (B, W) decoded label ids, -100 where there is no word; unless training.
        span_scores: (B, W) in 0..1, at an entity's first word the posterior of exactly that entity, 0
            elsewhere; unless training.
        picture_effects, context_effects: (B, W) see `with_effects`, which puts them here.
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    tags: Tensor | None = None
    span_scores: Tensor | None = None
    picture_effects: Tensor | None = None
    context_effects: Tensor | None = None


class MMNERPreTrainedModel(PreTrainedModel):
    """Initialisation and what transformers wants to know of the models of this package."""

    config: MMNERConfig
    base_model_prefix = "mmner"
    input_modalities = ["text", "image"]
    _supports_sdpa = True
    _keep_in_fp32_modules_strict = [r"heads\.\w+\.crf"]
    supports_gradient_checkpointing = True
    # The losses are means over texts; the Trainer must not divide or multiply them again when it accumulates
    # gradients.
    accepts_loss_kwargs = False
    # `nn.ModuleList` and `nn.ModuleDict`, of which type checkers know only that they hold modules.
    vision_towers: Any
    heads: Any
    objectives: Any

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if callable(initialise := getattr(module, "initialise", None)):
            initialise()
        elif isinstance(module, (nn.Linear, nn.Conv1d)):
            # BERT's 0.02 at BERT's width; in a narrower model that constant would drown the picture in the
            # residual.
            initialization.normal_(module.weight, std=(3 * module.weight[0].numel()) ** -0.5)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As transformers'; ``id2label=..., label2id=..., ignore_mismatched_sizes=True`` fine-tunes to other
        entity types.

        Towers and fusion are then those of the checkpoint, and what depends on the labels is made anew, even
        where its size is the same: the classifiers, the CRFs and the entity centres.
        """
        kwargs.setdefault("use_safetensors", True)  # a pickle runs what its maker likes
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        devices = set(map(str, (getattr(model, "hf_device_map", None) or {}).values()))
        if len(devices) > 1:  # the CRF's decoding and what the parts hand on pass by accelerate's hooks
            expected = f"expected the whole model on one device, found {sorted(devices)}"
            raise ValueError(f"device_map: {expected}; give device_map={{'': 0}} (or 'cpu'), not 'auto'")
        # Weights given as a state dict have no labels to compare, and an adapter brings its own layers.
        is_checkpoint = pretrained_model_name_or_path and not model._hf_peft_config_loaded
        if kwargs.get("ignore_mismatched_sizes") and is_checkpoint:
            options = {key: value for key, value in kwargs.items() if key != "trust_remote_code"}
            saved, _ = model.config.get_config_dict(pretrained_model_name_or_path, **options)
            labels = model.config.from_dict(saved).labels
            if labels != model.config.labels:
                model.reset_label_layers()
                _logger.warning(
                    f"{pretrained_model_name_or_path}: made classifiers, CRFs and entity centres anew, to be"
                    f" trained on {model.config.labels}; the checkpoint's are of {labels}"
                )
        return loaded

    def reset_label_layers(self) -> None:
        """Make anew, at random, what depends on the labels: classifiers, CRFs and entity centres."""
        parts: list[Head | Objective] = [*self.heads.values(), *self.objectives.values()]
        for module in [layer for part in parts for layer in part.label_layers()]:
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                # Or it would be taken for loaded, and left as it is.
                tensor._is_hf_initialized = False  # type: ignore[attr-defined]
            self._init_weights(module)

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        """As transformers', which reaches text encoder and fusion, and the picture encoders that are trained.

        A picture encoder with batch-norm goes on as it is: a second pass would enter each batch twice into
        its running statistics.
        """
        super()._set_gradient_checkpointing(enable, *args, **kwargs)
        for backbone in [tower.backbone for tower in self.vision_towers if not tower.frozen]:
            if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules()):
                if backbone.supports_gradient_checkpointing:
                    backbone._set_gradient_checkpointing(enable)
            elif enable:
                _logger.warning_once("gradient checkpointing: left out of a picture encoder with batch-norm")

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As transformers', with entries in the config for AutoModel and for the pipeline's names."""
        entry = "modeling_mmner.MMNERForTokenClassification"
        self.config.auto_map = {"AutoModel": entry} | (getattr(self.config, "auto_map", None) or {})
        impl = f"pipeline_mmner.{MultimodalNERPipeline.__name__}"
        pipeline = {"impl": impl, "pt": ["AutoModelForTokenClassification"]}
        self.config.custom_pipelines = dict.fromkeys(TASKS, pipeline)
        super().save_pretrained(save_directory, *args, **kwargs)


class MMNERForTokenClassification(MMNERPreTrainedModel):
    """Tags every word of a post that may have pictures.

    Text tower, vision towers, fusion, classifier and CRF, with the auxiliary objectives that the config
    lists.
    """

    def __init__(self, config: MMNERConfig) -> None:
        super().__init__(config)
        check_labels(config.labels)  # a config is checked when it is made, and may have been changed since
        self.text_tower = TextTower.named(config.text_tower)(config)
        self.vision_towers = nn.ModuleList(VisionTower(tower) for tower in config.vision_tower_configs())
        channels = tuple(tower.channels for tower in self.vision_towers)
        attention_heads = config.fusion_heads or self.text_tower.heads
        widths = Widths(self.text_tower.width, channels, attention_heads)
        self.fusion = Fusion.named(config.fusion)(config, widths)
        widths = replace(widths, features=self.fusion.width)
        heads = {name: Head.named(name)(config, widths) for name in config.objectives if name in HEADS}
        losses = [name for name in config.objectives if name not in HEADS]
        others = {name: Objective.named(name)(config, widths) for name in losses}
        check_reading(heads)
        self.heads, self.objectives = nn.ModuleDict(heads), nn.ModuleDict(others)
        self.post_init()

    @property
    def crf(self) -> CRF:
        """The main head's."""
        return self.heads[MAIN_HEAD].crf

    def get_input_embeddings(self) -> nn.Module:
        encoder = self.text_tower.encoder
        return encoder if isinstance(encoder, nn.Embedding) else encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        encoder = self.text_tower.encoder
        if isinstance(encoder, nn.Embedding):
            self.text_tower.encoder = value
        else:
            encoder.set_input_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        word_starts: Tensor | None = None,
        word_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        character_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_mask: Tensor | None = None,
        image_features: Tensor | Sequence[Tensor | None] | None = None,
        labels: Tensor | None = None,
        inputs_embeds: None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> MMNEROutput:
        """Emissions, tags and span scores; with labels also the losses.

        Args:
            input_ids, attention_mask: (B, K, S) the windows of each text, padded on the right; or (B, S), one
                window each.
            word_starts: (B, W) index in 0..K*S-1 of each word's first sub-token.
            word_mask: (B, W) bool, words first, W > 0.
            token_type_ids: (B, K, S) 1 for sub-tokens of the text's context; without it, no context.
            character_ids: (B, W, Y) the bytes of each word, plus 1, padded with 0, where the text tower reads
                characters.
            pixel_values, image_mask: (B, N, 3, H, W) uint8; (B, N) bool, without which all are there. N may
                be 0.
            image_features: (B, N, M, C) in place of a frozen tower's pixels; of several towers, one tensor
                each or None.
            labels: (B, W) label ids, padded with -100.
            inputs_embeds, output_attentions, output_hidden_states: None; there for PEFT, which gives them by
                its task type.

        Raises:
            ValueError: inputs that are missing, of the wrong type or out of range; pixels beside features; no
                labels in training.
        """
        if inputs_embeds is not None or output_attentions or output_hidden_states:
            expected = "expected no inputs_embeds, output_attentions or output_hidden_states"
            raise ValueError(f"forward: {expected}, found one of them")
        if labels is None and self.training and torch.is_grad_enabled():
            raise ValueError(
                "forward: expected labels (B, W) in training, found none. MMNERCollator makes them of the"
                " rows' column ner_tags; the Trainer keeps them back with label_smoothing_factor or"
                " compute_loss_func, which replace the CRF's loss: leave these out."
                " To predict, call model.eval() first, or torch.no_grad() to keep dropout"
            )
        text: Any = {"input_ids": input_ids, "attention_mask": attention_mask, "character_ids": character_ids}
        words: Any = {"word_starts": word_starts, "word_mask": word_mask, "token_type_ids": token_type_ids}
        pictures: Any = dict(zip(PICTURE_INPUTS, (pixel_values, image_mask, image_features), strict=True))
        return self.output(self.encode(labels=labels, **text, **words, **pictures))

    def encode(self, *, labels: Tensor | None = None, **inputs: Any) -> Context:
        """What the heads and objectives read, for the inputs of `forward`; no head has run yet.

        What another pass has read may be given in place of its inputs: its `text`, its `regions`.
        """
        pictures = {name: inputs.pop(name, None) for name in PICTURE_INPUTS}
        regions = inputs.pop("regions", None)
        text: TextStates = inputs["text"] if "text" in inputs else self._read_text(**inputs)
        regions = self._regions(len(text.mask), **pictures) if regions is None else regions
        return Context(text, regions, self.fusion(text, regions), labels)

    def _read_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        character_ids: Tensor | None = None,
        **words: Tensor | None,
    ) -> TextStates:
        """The text tower's states, from those of the inputs that it reads."""
        starts, mask = words.get("word_starts"), words.get("word_mask")
        if starts is None or mask is None:
            raise ValueError(
                "forward: expected word_starts and word_mask (B, W), found none. This model tags words, not"
                " sub-tokens: make its inputs with MMNERProcessor. The stock token-classification pipeline"
                " cannot place words, and is what a model object gets by its name; use"
                " pipeline('multimodal-ner', ...), or give the model's folder or id in place of the object,"
                " with trust_remote_code=True; or processor(...), model(...),"
                " processor.post_process_entities(...)"
            )
        read: dict[str, Tensor] = {"word_starts": starts, "word_mask": mask.bool()}
        name, row = self.config.text_tower, TEXT_TOWERS[self.config.text_tower]
        if token_type_ids is not None:
            if not row.has_encoder:
                found = f"with text tower {name!r}, which reads no context"
                raise ValueError(f"forward: expected no token_type_ids {found}")
            read["token_type_ids"] = _in_windows(token_type_ids)
        if row.reads_characters:
            if character_ids is None:
                raise ValueError(
                    f"forward: expected character_ids (B, W, Y), which text tower {name!r} reads, found none;"
                    " make the inputs with the model's own MMNERProcessor"
                )
            read["character_ids"] = character_ids
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self.text_tower(_in_windows(input_ids), _in_windows(attention_mask), **read)

    def _regions(
        self,
        batch: int,
        pixel_values: Tensor | None,
        image_mask: Tensor | None,
        image_features: Tensor | Sequence[Tensor | None] | None,
    ) -> list[Regions]:
        """Each tower's regions, from ready-made features or from pixels."""
        if not self.vision_towers:
            return []
        features: list[Tensor | None] = [None] * len(self.vision_towers)
        if image_features is not None:
            features = [image_features] if isinstance(image_features, Tensor) else list(image_features)
            self._check_features(features, pixel_values)
        elif pixel_values is None:
            pixel_values = torch.zeros(batch, 0, 3, 1, 1, dtype=torch.uint8, device=self.device)
            image_mask = None
        if pixel_values is not None and (pixel_values.dtype != torch.uint8 or pixel_values.dim() != 5):
            found = f"{tuple(pixel_values.shape)} {pixel_values.dtype}"
            hint = "the towers normalise pixels themselves"
            raise ValueError(f"pixel_values: expected (B, N, 3, H, W) uint8 in 0..255, found {found}; {hint}")
        pictures = next(given for given in (pixel_values, *features) if given is not None)
        mask = pictures.new_ones(pictures.shape[:2]) if image_mask is None else image_mask
        return [
            tower(pixel_values, image_mask=mask.bool())
            if feature is None
            else tower.regions_of_posts(feature.to(tower.mean), mask.bool())
            for tower, feature in zip(self.vision_towers, features, strict=True)
        ]

    def _check_features(self, features: Sequence[Tensor | None], pixel_values: Tensor | None) -> None:
        if len(features) != len(self.vision_towers):
            expected = f"one tensor for each of {len(self.vision_towers)} towers"
            raise ValueError(f"image_features: expected {expected}, found {len(features)}")
        if (pixel_values is None) != all(feature is not None for feature in features):
            found = "both" if pixel_values is not None else "neither for one of the towers"
            raise ValueError(f"forward: expected pixel_values or image_features, found {found}")
        for tower, feature in zip(self.vision_towers, features, strict=True):
            if feature is not None and not tower.frozen:
                wanted = "pixel_values for a tower that is trained"
                raise ValueError(f"image_features: expected {wanted}, found ready-made features")
            if feature is not None and (feature.dim() != 4 or feature.shape[-1] != tower.channels):
                wanted = f"(B, N, M, {tower.channels})"
                raise ValueError(f"image_features: expected {wanted}, found {tuple(feature.shape)}")

    def run_head(self, name: str, context: Context) -> Tensor:
        """A head's emissions (B, W, L), which are put into the context, after those that it reads."""
        if name not in context.emissions:
            for needed in self.heads[name].reads:
                self.run_head(needed, context)
            context.emissions[name] = self.heads[name](context)
        return context.emissions[name]

    def output(self, context: Context) -> MMNEROutput:
        """The output of a batch, after running the heads and objectives that are wanted (eq. 13)."""
        emissions = self.run_head(MAIN_HEAD, context)
        losses, weighted = {}, []
        for name, weight in self.config.objectives.items():
            if context.labels is None or weight <= 0:
                continue
            if name in self.heads:
                losses[name] = self.heads[name].loss(self.run_head(name, context), context)
            else:
                losses[name] = self.objectives[name](context)
            weighted.append(weight * losses[name])
        loss = torch.stack(weighted).sum() if weighted else None
        mask, tags, scores = context.text.mask, None, None
        if not self.training:
            tags = self.crf.decode_batch(emissions, mask=mask)
            scores = self.crf.span_scores(emissions, tags, mask=mask)
        # All at once: an output's keys are in the order in which they were set, and the loss must come first
        # in a tuple.
        return MMNEROutput(loss=loss, losses=losses or None, logits=emissions, tags=tags, span_scores=scores)


def _in_windows(ids: Tensor) -> Tensor:
    """(B, K, S), where (B, S) stands for one window each."""
    return ids[:, None] if ids.dim() == 2 else ids


MMNERForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")
if __package__ == "modeling_mmner.model":  # as remote code it is found by the auto_map of its config
    AutoModel.register(MMNERConfig, MMNERForTokenClassification, exist_ok=True)
    AutoModelForTokenClassification.register(MMNERConfig, MMNERForTokenClassification, exist_ok=True)
