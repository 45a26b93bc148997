"""Tests of `mmner review`: which posts come first, and that a corrected export is what was corrected."""

import json

import pytest
from PIL import Image

from dataset_scripts.opening import open_corpus
from modeling_mmner.cli import main
from modeling_mmner.inference.review import doubts, labelling_interface, review
from modeling_mmner.model.labels_mmner import split_words, tags_to_spans
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader, Prediction
from tests.saved import save_small
from tests.tiny import parts_of

WORDS = ["Jordan", "posts", "from", "Paris", "🎉", "<b>", "&", "é"]
POSTS = [{"id": str(n), "text": " ".join(WORDS[: n % 7 + 1] + WORDS[: n % 3])} for n in range(20)]


def entity(word, kind, score, start=0, **more):
    return {"word": word, "entity_group": kind, "score": score, "start": start} | more


def test_doubts_are_counted_by_hand():
    """If it failed, a picture that contradicts the text, or decides it, would bring no post forward."""
    in_text = [entity("new  york", "LOC", 0.9), entity("Ajax", "ORG", 0.75, picture_effect=-0.6)]
    in_picture = [entity("New York", "ORG", 0.5, None), entity("AJAX", "ORG", 0.5, None)]
    found = doubts(Prediction(entities=[*in_text, *in_picture]))
    assert found == {"wrong": pytest.approx(0.35), "disagreeing": 1, "decided_by_picture": 0.6}
    plain = [entity("a", "LOC", 0.5, picture_effect=None), entity("b", "LOC", 0.5, picture_effect=0.4)]
    assert doubts(Prediction(entities=plain)) == {"wrong": 1.0, "disagreeing": 0, "decided_by_picture": 0}


def test_the_most_doubtful_posts_come_first():
    """If it failed, posts would be mixed up with each other's entities, or the sure ones be looked at."""
    model, processor = parts_of({"fusion": "text-only"}, posts=[WORDS])
    predictor = BatchPredictor(model, PostReader(processor), batch_size=4, read_ahead=True)
    every = {one.id: sum(doubts(one).values()) for one in predictor.predict(POSTS)}
    tasks, errors = review(predictor, iter([{"id": "x"}, *POSTS]), count=5, name="m")
    best = sorted(every, key=lambda name: -every[name])[:5]
    assert [task["data"]["id"] for task in tasks] == best and every[best[0]] > 0
    assert len(errors) == 1 and "post 1: expected either 'text' or 'tokens'" in errors[0]
    processor.labels = ["O", 'B-"><script>']
    assert "<script>" not in labelling_interface(processor)


def test_corrected_and_exported_tasks_are_read_as_they_were_corrected(tmp_path, capsys):
    """If it failed, what people corrected would be lost, moved behind an emoji, or part from its picture."""
    model = save_small(tmp_path / "model")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    posts = [
        post | {"image": "red.png" if n % 2 else "http://127.0.0.1/x.png"} for n, post in enumerate(POSTS)
    ]
    (tmp_path / "posts.jsonl").write_text(
        "".join(f"{json.dumps(post)}\n" for post in posts), encoding="utf-8"
    )
    places = ["--input", str(tmp_path / "posts.jsonl"), "--output", str(tmp_path / "tasks.json")]
    assert main(["review", "--model", str(model), *places, "-n", "12"]) == 0
    assert (
        '<Labels name="label" toName="text"><Label value="PER"/><Label value="LOC"/>'
        in capsys.readouterr().out
    )
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    expected = {}
    for number, task in enumerate(tasks):
        result, text = task["predictions"][0]["result"], task["data"]["text"]
        if number % 3 == 0:  # somebody says that a post's last word is the one entity of it
            word = split_words(text)[-1]
            value = {"start": word.start, "end": word.end, "text": word.text, "labels": ["ORG"]}
            result = [{"id": "n", "from_name": "label", "to_name": "text", "type": "labels", "value": value}]
        task["annotations"] = [{"result": result, "was_cancelled": False}]
        values = [one["value"] for one in result]
        assert all(text[value["start"] : value["end"]] == value["text"] for value in values)
        expected[task["data"]["id"]] = [(value["labels"][0], value["text"]) for value in values]
    (tmp_path / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    corpus, found = open_corpus(str(tmp_path / "export.json")), {}
    for row in (row for rows in corpus.splits.values() for row in rows):
        starts = [word.start for word in split_words(" ".join(row["tokens"]))]
        assert len(starts) >= len(row["tokens"])
        spans = tags_to_spans([corpus.labels[tag] for tag in row["ner_tags"]])
        found[row["id"]] = [(span.type, " ".join(row["tokens"][span.start : span.end])) for span in spans]
        pictures = row["images"] if "images" in row else [row["image"]]
        assert bool([one for one in pictures if one]) == bool(int(row["id"]) % 2)
    assert corpus.left_out == [] and found == {
        name: [(kind, " ".join(word.text for word in split_words(text))) for kind, text in spans]
        for name, spans in expected.items()
    }
