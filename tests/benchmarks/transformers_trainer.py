"""transformers' own Trainer with its own model for token classification: text alone, no CRF."""

import copy
from typing import Any

from datasets import Dataset
from transformers import (
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from modeling_mmner.model.labels_mmner import IGNORED

from .setting import Setting


class TransformersTrainer:
    """The setting's text encoder with a linear layer, trained as transformers' examples do it.

    Posts are tokenized beforehand; the first sub-token of each word has its label. They come sorted by
    length, which its own sampler does in a whole corpus, and hardly with so few.
    """

    def __init__(self, setting: Setting, text_config: Any) -> None:
        self.setting = setting
        config = copy.deepcopy(text_config)
        config.num_labels = len(setting.processor.labels)
        arguments = TrainingArguments(
            num_train_epochs=1,
            per_device_train_batch_size=setting.batch_size,
            train_sampling_strategy="sequential",
            optim="adamw_torch_fused",
            bf16=setting.precision == "bf16",
            use_cpu=True,
            seed=setting.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
        )
        texts = sorted(map(self._tokenized, setting.posts), key=lambda text: len(text["input_ids"]))
        self.trainer = Trainer(
            AutoModelForTokenClassification.from_config(config),
            arguments,
            train_dataset=Dataset.from_list(texts),
            data_collator=DataCollatorForTokenClassification(setting.processor.tokenizer),
        )
        self.trainer.remove_callback(PrinterCallback)

    def _tokenized(self, post: dict[str, Any]) -> dict[str, Any]:
        text = self.setting.processor.tokenizer(post["tokens"], is_split_into_words=True)
        words = text.word_ids()
        first = [word is not None and word not in words[:place] for place, word in enumerate(words)]
        labels = [
            post["ner_tags"][word] if begins else IGNORED for word, begins in zip(words, first, strict=True)
        ]
        return {"input_ids": text["input_ids"], "attention_mask": text["attention_mask"], "labels": labels}

    def epoch(self) -> float:
        """Train on all posts; the mean loss."""
        return self.trainer.train().training_loss
