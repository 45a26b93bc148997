"""The commands `annotate` and `predict` on the same JSON lines, by the same model; each loads it first, as on
a command line.
"""

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from modeling_mmner.cli import main
from modeling_mmner.model.images_mmner import load_picture

from .rounds import Comparison, Contender
from .setting import Setting

ROWS, SHARDS = 512, 8


def annotation_comparison(setting: Setting) -> Iterator[Comparison]:
    """A row of either command."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        given = ["--model", str(folder / "model"), "--input", str(_write(setting, folder))]
        given += [
            "--dtype",
            "bfloat16" if setting.precision == "bf16" else "float32",
            "--batch_size",
            str(setting.batch_size),
        ]

        def annotate() -> None:
            shutil.rmtree(folder / "annotation", ignore_errors=True)
            _run(
                [
                    "annotate",
                    *given,
                    "--output_dir",
                    str(folder / "annotation"),
                    "--rows_per_shard",
                    str(ROWS // SHARDS),
                ]
            )

        def predict() -> None:
            _run(["predict", *given, "--output", str(folder / "predictions.jsonl")])

        contenders = {"annotate": Contender(annotate, ROWS), "predict": Contender(predict, ROWS)}
        yield Comparison("a row of annotation", contenders, [("annotate", "predict")])


def _write(setting: Setting, folder: Path) -> Path:
    """The model, the pictures and, over and over, the posts; returns the file of the posts."""
    for part in (setting.model(), setting.processor):
        part.save_pretrained(folder / "model")
    posts = []
    for number, post in enumerate(setting.posts):
        load_picture(post["image"]).save(folder / f"{number}.png")
        posts.append({"tokens": post["tokens"], "image": f"{number}.png"})
    rows = [json.dumps({"id": row, **post}) for row, post in enumerate(islice(cycle(posts), ROWS))]
    (folder / "posts.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder / "posts.jsonl"


def _run(command: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        if (status := main(command)) != 0:
            raise RuntimeError(f"{command[0]}: expected status 0, found {status}")
