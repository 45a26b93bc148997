"""Names that a model finds in pictures, held against those that people read there.

    python -m tests.benchmarks.picture_names names.json pictures/ --model MODEL

`names.json` maps the file of a picture to its names, ``{"name", "type", "box": [xmin, ymin, xmax, ymax]}``. A
name counts once a picture, whatever its case and spaces. At last it says how many of the names found are
found again in the pictures saved as JPEG and as WebP at quality 90.
"""

import argparse
import io
import json
from collections import Counter
from pathlib import Path
from time import process_time
from typing import Any

from modeling_mmner.inference.loading import load_predictor
from modeling_mmner.model.images_mmner import load_picture
from modeling_mmner.model.picture_text_mmner import reader_of
from modeling_mmner.model.prediction_mmner import Prediction


def folded(name: str) -> str:
    return " ".join(name.casefold().split())


def overlap(box: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes."""
    width, height = (min(box[at + 2], other[at + 2]) - max(box[at], other[at]) for at in (0, 1))
    areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (box, other)]
    shared = max(width, 0) * max(height, 0)
    return shared / (sum(areas) - shared or 1)


def measured(gold: dict[str, list[dict[str, Any]]], found: dict[str, Any]) -> dict[str, Any]:
    """Counts of names, of names with types, what was lost where, and the overlap of each box found.

    Args:
        found: the prediction of each picture.
    """
    counts: Counter[str] = Counter()
    overlaps = []
    for name, one in found.items():
        wanted, inside = gold.get(name, []), [entity for entity in one.entities if entity["start"] is None]
        for key, ours, theirs in (
            ("", {folded(e["word"]) for e in inside}, {folded(e["name"]) for e in wanted}),
            (
                "typed ",
                {(folded(e["word"]), e["entity_group"]) for e in inside},
                {(folded(e["name"]), e["type"]) for e in wanted},
            ),
        ):
            counts[f"{key}right"] += len(ours & theirs)
            counts[f"{key}found"] += len(ours)
            counts[f"{key}wanted"] += len(theirs)
            if not key:
                read = folded(" ".join(text.text for text in one.picture_texts))
                counts["lost by the reader"] += sum(word not in read for word in theirs - ours)
                counts["lost by the tagger"] += sum(word in read for word in theirs - ours)
        for word in {folded(e["word"]) for e in inside} & {folded(e["name"]) for e in wanted}:
            boxes = [list(entity["box"].values()) for entity in inside if folded(entity["word"]) == word]
            others = [entity["box"] for entity in wanted if folded(entity["name"]) == word]
            overlaps.append(max(overlap(box, other) for box in boxes for other in others))
    return {"counts": counts, "overlaps": overlaps}


def told(result: dict[str, Any]) -> str:
    """Precision, recall and F1 of a result, and its boxes, in a line each."""
    lines, counts = [], result["counts"]
    for key in ("", "typed "):
        right, found, wanted = (counts[f"{key}{name}"] for name in ("right", "found", "wanted"))
        precision, recall, f1 = right / max(found, 1), right / max(wanted, 1), 2 * right / (found + wanted)
        lines.append(f"{key}names: P {precision:.3f} R {recall:.3f} F1 {f1:.3f}, {right} of {wanted} right")
    good = sum(one >= 0.5 for one in result["overlaps"]) / max(len(result["overlaps"]), 1)
    lines.append(f"boxes of names found: {len(result['overlaps'])}, {good:.0%} of them with IoU >= 0.5")
    lines.append(", ".join(f"{name}: {counts[name]}" for name in counts if name.startswith("lost")))
    return "\n".join(lines)


def saved_as(kind: str, path: Path) -> bytes:
    """The picture of a file, saved again at quality 90."""
    content = io.BytesIO()
    load_picture(path).save(content, kind, quality=90)
    return content.getvalue()


def words_in(found: Prediction) -> set[str]:
    """The names in a picture."""
    return {folded(entity["word"]) for entity in found.entities if entity["start"] is None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True)
    given = parser.parse_args()
    gold = json.loads(Path(given.names).read_text(encoding="utf-8"))
    files = sorted(path for path in given.folder.iterdir() if path.is_file())
    reader, spent = reader_of(True), []

    def timed(picture: Any) -> list[Any]:
        started = process_time()
        lines = list(reader(picture))
        spent.append(process_time() - started)
        return lines

    timed.least_score = reader.least_score  # type: ignore[attr-defined]
    predictor = load_predictor(given.model, device="cpu", dtype="float32", read_pictures=timed)
    predictor.read_ahead = False  # one after the other: the time is a picture's alone
    started = process_time()
    posts = [{"text": "", "image": str(path)} for path in files]
    found = dict(zip((path.name for path in files), predictor.predict(posts), strict=True))
    whole = (process_time() - started) / len(files)
    print(f"CPU seconds a picture: {whole:.2f}, {sum(spent) / len(spent):.2f} of them to read it")
    print(told(measured(gold, found)))
    for half in (0, 1):
        print(f"half {half}:", told(measured(gold, dict(list(found.items())[half::2]))).splitlines()[0])
    for kind in ("JPEG", "WEBP"):
        again = predictor.predict([{"text": "", "image": saved_as(kind, path)} for path in files])
        pairs = [(words_in(one), words_in(other)) for one, other in zip(found.values(), again, strict=True)]
        kept, all_found = sum(len(one & other) for one, other in pairs), sum(len(one) for one, _ in pairs)
        print(f"saved as {kind}: {kept} of {all_found} names are found again, {kept / all_found:.1%}")


if __name__ == "__main__":
    main()
