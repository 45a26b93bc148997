"""Shared by the tests of the demo page: a model that marks everything, a text full of traps, and waiting for
a server.
"""

import socket
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from tests.shared_data import bpe_tokenizer
from tests.tiny import LABELS, ready_model

TEXT = "Jordan posts from San Marino !"
HOSTILE = (
    "<script>alert(\"a\")</script> & <b onclick='x'>Jordan</b> ${1+1} {{value}} `x` \u05e9\u05dc\u05d5\u05dd "
    "\U0001f469\U0001f3fd\u200d\U0001f680 \ud83d end"
)


def encodable(text: str) -> str:
    """The text with U+FFFD for half an emoji."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def processor_of(*, image_size: int | None = 64, context_window: int | None = None) -> MMNERProcessor:
    tokenizer = bpe_tokenizer()
    tokenizer.model_max_length = 64
    return MMNERProcessor(tokenizer, labels=LABELS, image_size=image_size, context_window=context_window)


def marking_model(**settings) -> MMNERForTokenClassification:
    """A tiny model that, untrained as it is, takes every word for a person."""
    model = ready_model(text={"vocab_size": len(bpe_tokenizer())}, **settings)
    model.heads["crf"].classifier.bias.data[LABELS.index("B-PER")] += 50
    return model


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answer(process: subprocess.Popen, address: str, log: Path, *, seconds: float = 90) -> str:
    """What a server says once it is up."""
    for _ in range(int(seconds / 0.2)):
        try:
            return urlopen(address, timeout=5).read().decode()
        except OSError:
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.2)
    raise AssertionError(f"no answer from {address}: {log.read_text()[-3000:]}")
