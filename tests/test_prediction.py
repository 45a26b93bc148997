"""Annotating streams of posts, from Python and from the command line."""

import io
import json

import pytest
import torch
from PIL import Image

from modeling_mmner import MMNERProcessor
from modeling_mmner.assembly import train_tokenizer
from modeling_mmner.cli import main
from modeling_mmner.hub import save_hub_folder
from modeling_mmner.prediction import Annotator, PostError, json_line
from tests.small_metrics import make_metrics
from tests.tiny import LABELS, tiny_config, tiny_model

WORDS = ["Jordan", "posts", "from", "Paris", "today", "and", "tomorrow"]


@pytest.fixture(scope="module")
def parts():
    """A tiny model that finds entities in random words, and its processor."""
    tokenizer = train_tokenizer([WORDS], 100)
    model = tiny_model(tiny_config(text={"vocab_size": len(tokenizer)}))
    return model, MMNERProcessor(tokenizer, labels=LABELS, image_size=64)


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    save_hub_folder(*parts, folder=path, metrics=make_metrics())
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.linear_gradient("L").save(path)
    return path


def some_posts(picture) -> list[dict]:
    """Posts of many lengths, as text or tokens, with no, one or two pictures."""
    generator = torch.Generator().manual_seed(0)
    posts = []
    for number in range(70):
        count = int(torch.randint(0, 12, (1,), generator=generator))
        words = [WORDS[int(torch.randint(0, len(WORDS), (1,), generator=generator))] for _ in range(count)]
        text = {"text": " ".join(words)} if number % 2 else {"tokens": words}
        images = [{}, {"image": str(picture)}, {"images": [str(picture), str(picture)]}][number % 3]
        posts.append({"id": number, **text, **images})
    return posts


def test_windows_and_batches_equal_one_by_one(parts, picture) -> None:
    """If it failed, a post's entities would depend on its neighbours, or be given to another post."""
    posts = some_posts(picture)
    together = list(Annotator(*parts, batch_size=2).annotate(posts))
    alone = [next(Annotator(*parts, batch_size=1).annotate([post])) for post in posts]
    assert [row["id"] for row in together] == [post["id"] for post in posts]
    assert any(row["entities"] for row in together)
    for one, other in zip(together, alone, strict=True):
        assert one["text"] == other["text"]
        spans = [[(entity["entity_group"], entity["start"], entity["end"]) for entity in row["entities"]] for row in (one, other)]
        assert spans[0] == spans[1]
        for first, second in zip(one["entities"], other["entities"], strict=True):
            assert first["score"] == pytest.approx(second["score"], abs=1e-5)
            assert one["text"][first["start"] : first["end"]] == first["word"]


def test_workers_change_nothing(parts, picture) -> None:
    """If it failed, reading pictures in other processes would change or reorder the results."""
    posts = some_posts(picture)[:9]
    alone = list(Annotator(*parts, batch_size=4).annotate(posts))
    assert list(Annotator(*parts, batch_size=4, num_workers=2).annotate(posts)) == alone


def test_broken_picture_is_counted_and_its_post_annotated_without(parts, picture, caplog) -> None:
    """If it failed, one broken picture would end a long run, or its post would be lost."""
    annotator = Annotator(*parts)
    text = "Jordan posts from Paris"
    broken, without = annotator.annotate([{"id": 7, "text": text, "image": "/not/there.jpg"}, {"id": 8, "text": text}])
    assert broken["entities"] == without["entities"]
    assert annotator.broken_pictures == 1
    assert "annotated without its picture: post 7: picture /not/there.jpg: expected a file, found none" in caplog.text


def test_threshold_leaves_out_what_scores_less(parts, picture) -> None:
    """If it failed, the threshold would keep weak entities or drop strong ones."""
    every = [entity for row in Annotator(*parts).annotate(some_posts(picture)) for entity in row["entities"]]
    threshold = sorted(entity["score"] for entity in every)[len(every) // 2]
    kept = [entity for row in Annotator(*parts, threshold=threshold).annotate(some_posts(picture)) for entity in row["entities"]]
    assert [entity["word"] for entity in kept] == [entity["word"] for entity in every if entity["score"] >= threshold]


@pytest.mark.parametrize(
    ("post", "message"),
    [
        ("text", "post 2: expected an object with 'text' or 'tokens', found str"),
        ({"id": 1}, r"post 2: expected either 'text' or 'tokens', found neither; its keys are \['id'\]"),
        ({"text": "a", "tokens": ["a"]}, "post 2: expected either 'text' or 'tokens', found both"),
        ({"text": 3}, "post 2: expected 'text' to be a string, found int"),
        ({"tokens": ["a", 3]}, "post 2: expected 'tokens' to be a list of strings, found"),
    ],
    ids=["no object", "neither", "both", "text", "tokens"],
)
def test_bad_post_is_named_after_those_before_it_are_done(parts, post, message) -> None:
    """If it failed, a bad post would be passed over, or take the results before it with it."""
    results = Annotator(*parts).annotate([{"text": "Paris"}, post])
    assert next(results)["text"] == "Paris"
    with pytest.raises(PostError, match=message):
        next(results)


def test_command_line_reads_one_text(folder, picture, capsys) -> None:
    """If it failed, the README's first command would not answer."""
    assert main(["predict", "--model", str(folder), "--text", "Jordan in Paris", "--image", str(picture), "--device", "cpu"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["text"] == "Jordan in Paris" and isinstance(result["entities"], list)


def test_command_line_reads_and_writes_json_lines(folder, parts, picture, tmp_path) -> None:
    """If it failed, files of posts would come back changed, reordered or incomplete."""
    posts = some_posts(picture)
    source, target = tmp_path / "posts.jsonl", tmp_path / "entities.jsonl"
    source.write_text("\n\n".join(map(json.dumps, posts)), encoding="utf-8")
    options = ["--model", str(folder), "--input", str(source), "--output", str(target), "--device", "cpu"]
    assert main(["predict", *options, "--batch_size", "8"]) == 0
    written = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert written == list(Annotator(*parts, batch_size=8).annotate(posts))


def test_command_line_names_the_line_that_is_no_json(folder, monkeypatch, capsys) -> None:
    """If it failed, users would have to search a large file for one bad line, or lose the lines before it."""
    monkeypatch.setattr("sys.stdin", io.StringIO('{"text": "Paris"}\n{"text": \n'))
    assert main(["predict", "--model", str(folder), "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["text"] == "Paris"
    assert "predict: standard input:2: expected a JSON object, found" in printed.err


def test_command_line_refuses_options_that_contradict(folder, capsys) -> None:
    """If it failed, an option would be ignored without a word."""
    assert main(["predict", "--model", str(folder), "--text", "a", "--input", "b"]) == 2
    assert main(["predict", "--model", str(folder), "--image", "a.png"]) == 2
    printed = capsys.readouterr().err
    assert "expected --text or --input, found both" in printed
    assert "expected --text with --image" in printed


def test_half_an_emoji_is_written_as_json(tmp_path) -> None:
    """If it failed, one cut emoji would end the writing of a file."""
    whole, cut = {"text": "Zoë 😍"}, {"text": "Zoë \ud83d"}
    assert json_line(whole) == '{"text": "Zoë 😍"}'
    (tmp_path / "cut.json").write_text(json_line(cut), encoding="utf-8")
    assert json.loads((tmp_path / "cut.json").read_text(encoding="utf-8")) == cut
