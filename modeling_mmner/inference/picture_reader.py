"""Our reader of text in pictures: RapidOCR, whose models come with it; nothing is downloaded."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..model.picture_text_mmner import OWN_READERS

_READING = threading.Lock()  # an engine keeps what it is doing in itself


@dataclass(frozen=True)
class RapidOCRReader:
    """Reads the lines of a picture, as `PictureReader` has them; a process that it is sent to loads its own.

    Attributes:
        recogniser: an ONNX file of a PaddleOCR recognition model in place of RapidOCR's own, which knows its
            characters, as those of RapidOCR do.
        least_score: of a line, for entities in it; chosen on pictures of tweets.

    Raises:
        ValueError: RapidOCR is missing, or there is no such file.
    """

    recogniser: str | None = None
    least_score: float = 0.9

    def __post_init__(self) -> None:
        if find_spec("rapidocr") is None:
            raise ValueError("reading pictures: expected rapidocr, found none; pip install 'mmner[ocr]'")
        if self.recogniser is not None and not Path(self.recogniser).is_file():
            raise ValueError(f"recogniser {self.recogniser}: expected an ONNX file, found none")

    def __call__(self, picture: Image.Image) -> Iterator[dict[str, Any]]:
        pixels = np.asarray(picture)[:, :, ::-1]  # it takes blue first
        with _READING:
            found = _engine(self.recogniser)(pixels, return_word_box=True)
        if not found.txts:
            return
        lines = zip(found.txts, found.scores, found.boxes, strict=True)
        pieces_of_lines: Any = zip_longest(lines, found.word_results or (), fillvalue=())
        for (text, score, box), pieces in pieces_of_lines:
            # The scores beside its pieces are those of characters: there are more of them.
            words = [{"text": piece, "box": place} for piece, _, place in pieces if place is not None]
            yield {"text": text, "score": score, "box": box, "words": words}


@lru_cache(maxsize=1)
def _engine(recogniser: str | None) -> Any:
    from rapidocr import RapidOCR

    params: dict[str, Any] = {"Global.log_level": "error", "EngineConfig.onnxruntime.intra_op_num_threads": 1}
    if recogniser is not None:
        params["Rec.model_path"] = recogniser
    return RapidOCR(params=params)


OWN_READERS[:] = [RapidOCRReader]
