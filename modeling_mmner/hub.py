"""A trained model as a folder that the Hub serves."""

from pathlib import Path

from .modeling_mmner import MMNERForTokenClassification
from .processing_mmner import MMNERProcessor


def save_hub_folder(model: MMNERForTokenClassification, processor: MMNERProcessor, *, folder: str | Path, card: str) -> None:
    """Write config, weights, code, processor and model card; `from_pretrained(folder, trust_remote_code=True)` needs no more."""
    folder = Path(folder)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
