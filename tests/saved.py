"""Small models saved as folders that the Hub serves."""

from pathlib import Path

from modeling_mmner import MMNERProcessor
from modeling_mmner.hub.push import save_hub_folder
from modeling_mmner.training.vocabulary import train_tokenizer
from tests.small_metrics import run_metrics
from tests.tiny import LABELS, ready_model

_SYSTEMS = {"quickstart": {}, "bert-crf": {"fusion": "text-only", "objectives": {"crf": 1.0}}}


def save_small(folder: Path, *, recipe: str = "quickstart") -> Path:
    """Save a tiny model with the metrics of a recipe; returns the folder."""
    tokenizer = train_tokenizer([["Jordan", "posts", "from", "Paris"]], 100)
    model = ready_model(**_SYSTEMS[recipe], text={"vocab_size": len(tokenizer)})
    processor = MMNERProcessor(tokenizer, labels=LABELS, image_size=64 if recipe == "quickstart" else None)
    save_hub_folder(model, processor, folder=folder, metrics=run_metrics(recipe))
    return folder
