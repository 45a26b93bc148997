"""Annotating streams of posts, from Python and from the command line."""

import copy
import io
import itertools
import json

import pytest
import torch
from PIL import Image

from modeling_mmner import MMNERProcessor, MultimodalNERPipeline
from modeling_mmner.cli import main
from modeling_mmner.files import json_line
from modeling_mmner.hub.push import save_hub_folder
from modeling_mmner.inference.explain import explain
from modeling_mmner.model import images_mmner, prediction_mmner, processing_mmner
from modeling_mmner.model.labels_mmner import tags_to_spans
from modeling_mmner.model.posts_mmner import PostError
from modeling_mmner.model.prediction_mmner import BatchPredictor, PostReader, Prediction
from modeling_mmner.training.vocabulary import train_tokenizer
from tests.small_metrics import run_metrics
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
    save_hub_folder(*parts, folder=path, metrics=run_metrics())
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


def predict(parts, posts, **options) -> list[Prediction]:
    """As the command does: broken pictures are left out, and posts are read ahead and sorted by length."""
    model, processor = parts
    options = {"batch_size": 4, "read_ahead": True} | options
    return list(
        BatchPredictor(model, PostReader(processor, broken_pictures="skip"), **options).predict(posts)
    )


def rows_of(predictions: list[Prediction]) -> list[dict]:
    return [{"id": found.id, "text": found.post.text, "entities": found.entities} for found in predictions]


@pytest.mark.parametrize(
    "options",
    [{"read_ahead": False}, {"batch_size": 2}, {"batch_size": 32, "max_tokens": 40}],
    ids=["as they come", "sorted in windows", "in bounded batches"],
)
def test_sorting_and_batches_equal_one_by_one(parts, picture, options) -> None:
    """If it failed, a post's entities would depend on its neighbours, or be given to another post."""
    posts = some_posts(picture)
    together = rows_of(predict(parts, posts, **options))
    alone = rows_of([predict(parts, [post])[0] for post in posts])
    assert [row["id"] for row in together] == [post["id"] for post in posts]
    assert any(row["entities"] for row in together)
    for one, other in zip(together, alone, strict=True):
        assert one["text"] == other["text"]
        for first, second in zip(one["entities"], other["entities"], strict=True):
            assert first | {"score": 0} == second | {"score": 0}
            assert first["score"] == pytest.approx(second["score"], abs=1e-5)
            assert one["text"][first["start"] : first["end"]] == first["word"]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_reading_ahead_changes_nothing(parts, picture, monkeypatch, batch_size) -> None:
    """If it failed, what is found would depend on how many cores read the posts."""
    posts, found = some_posts(picture), []
    for threads in (0, 3):
        monkeypatch.setattr(prediction_mmner, "READING_THREADS", threads)
        found.append(rows_of(predict(parts, posts, batch_size=batch_size)))
    assert found[0] == found[1]


def noted(monkeypatch, model, what) -> list:
    """What of each batch that the model is run on."""
    seen, run = [], model.forward
    monkeypatch.setattr(model, "forward", lambda **inputs: seen.append(what(inputs)) or run(**inputs))
    return seen


def test_batches_take_no_more_memory_than_they_may(parts, monkeypatch) -> None:
    """If it failed, one post of thousands of words would take the memory of a batch of such posts."""
    model, processor = parts
    shapes = noted(monkeypatch, model, lambda inputs: inputs["input_ids"].shape)
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.model_max_length = 16
    limited = MMNERProcessor(tokenizer, labels=LABELS, image_size=64)
    posts = [" ".join(WORDS * (number % 5 + 1) + WORDS * (40 * (number == 7))) for number in range(20)]
    found = predict((model, limited), posts, batch_size=8, max_tokens=200)
    assert [len(one.tags) for one in found] == [len(post.split()) for post in posts]
    sizes = [shape.numel() for shape in shapes]
    assert sum(shape[0] for shape in shapes) == 20 and max(shape[0] for shape in shapes) <= 8
    assert [size > 200 for size in sizes] == [False] * (len(sizes) - 1) + [True] and shapes[-1][0] == 1
    assert max(shape[1] for shape in shapes[:-1]) > 1  # texts of several windows share a batch


def test_like_lengths_share_a_batch(parts, monkeypatch) -> None:
    """If it failed, half of what is computed for posts of mixed lengths would be padding."""
    padding = noted(monkeypatch, parts[0], lambda inputs: (inputs["attention_mask"] == 0).sum())
    posts = [" ".join(WORDS[: 1 + number % 7]) for number in range(56)]
    predict(parts, posts, batch_size=8)
    assert sum(padding) == 0
    predict(parts, posts, batch_size=8, read_ahead=False)
    assert sum(padding) > 0


def test_many_posts_may_share_a_picture_that_is_not_decoded_yet(parts, tmp_path, monkeypatch) -> None:
    """If it failed, threads would decode one open file at a time over each other."""
    monkeypatch.setattr(prediction_mmner, "READING_THREADS", 8)
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    Image.effect_noise((1500, 900), 80).convert("RGB").save(path, exif=exif)
    with Image.open(path) as shared:
        found = predict(parts, [{"text": "Jordan in Paris", "image": shared} for _ in range(16)])
    (alone,) = predict(parts, [{"text": "Jordan in Paris", "image": str(path)}])
    assert {one.post.pictures[0].tobytes() for one in found} == {alone.post.pictures[0].tobytes()}


def test_tags_and_entities_belong_together(parts, picture) -> None:
    """If it failed, training would score other tags than the entities that users are given."""
    for found in predict(parts, some_posts(picture)):
        assert len(found.tags) == len(found.post.words)
        spans = [(span.type, span.start) for span in tags_to_spans(found.tags)]
        starts = [word.start for word in found.post.words]
        assert [(one["entity_group"], starts.index(one["start"])) for one in found.entities] == spans


def test_broken_picture_is_told_and_its_post_read_without(parts, caplog) -> None:
    """If it failed, one broken picture would end a long run, or its post would be lost."""
    text = "Jordan posts from Paris"
    posts = [{"id": 7, "text": text, "image": "/not/there.jpg"}, {"id": 8, "text": text}]
    broken, without = predict(parts, posts)
    message = "picture /not/there.jpg: expected a file, found none"
    assert broken.entities == without.entities and broken.error is None
    assert broken.broken_pictures == [message] and without.broken_pictures == []
    assert f"post 1 read without its picture: {message}" in caplog.text


@pytest.mark.parametrize(
    "post", [3, {"id": 1}, {"id": 1, "text": "a", "tokens": ["a"]}, {"tokens": ["a", 3]}]
)
def test_error_of_a_bad_post_is_its_result(parts, post) -> None:
    """If it failed, one bad post would end a run, be passed over, or shift the results of the others."""
    first, bad, last = predict(parts, [{"text": "Paris"}, post, {"text": "Jordan in Paris"}])
    assert isinstance(bad.error, PostError) and str(bad.error).startswith("post 2: expected")
    assert bad.post is None and bad.entities == []
    assert bad.id == (post.get("id") if isinstance(post, dict) else None)
    assert rows_of([first, last]) == rows_of(predict(parts, [{"text": "Paris"}, {"text": "Jordan in Paris"}]))
    assert all(found.error for found in predict(parts, [post] * 9))


@pytest.mark.parametrize("read_ahead", [False, True])
def test_post_that_cannot_be_put_together_is_its_own_error(parts, read_ahead) -> None:
    """If it failed, a row that its data set cannot make would stop the rows that were sorted with it."""

    class Rows(list):
        def __getitem__(self, index):
            row = super().__getitem__(index)
            if row is None:
                raise PostError("row 1: expected a picture that can be read")
            return row

    rows = Rows([{"text": "Jordan in Paris"}, None, {"text": "Paris"}])
    _, bad, last = predict(parts, rows, read_ahead=read_ahead)
    assert str(bad.error) == "row 1: expected a picture that can be read"
    assert last.error is None and len(last.tags) == 1


@pytest.mark.parametrize(
    ("read_ahead", "threads", "most"),
    [(False, 2, 3), (True, 0, 48), (True, 2, 96)],
    ids=["a batch", "a window", "two windows"],
)
def test_a_stream_is_read_no_further_than_it_must(parts, monkeypatch, read_ahead, threads, most) -> None:
    """If it failed, memory would grow with the stream, or its first results be late."""
    monkeypatch.setattr(prediction_mmner, "READING_THREADS", threads)
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield {"text": "Paris " * (number % 5)}

    model, processor = parts
    stream = BatchPredictor(model, PostReader(processor), batch_size=3, read_ahead=read_ahead).predict(
        endless()
    )
    assert read == [] and [len(next(stream).tags) for _ in range(3)] == [0, 1, 2]
    assert len(read) == most
    assert [len(next(stream).tags) for _ in range(97)] == [number % 5 for number in range(3, 100)]
    assert len(read) < 100 + most
    stream.close()


def test_each_step_of_a_post_s_way_is_done_once(parts, picture, monkeypatch) -> None:
    """If it failed, a text would be split, or a picture decoded, twice on its way to its entities, or the
    tokenizer be called for each post, four times as slow.
    """

    def counted(owner, name) -> list:
        calls, function = [], getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *given, **named: calls.append(given) or function(*given, **named)
        )
        return calls

    model, processor = parts
    splits, opened = counted(processing_mmner, "split_words"), counted(Image, "open")
    decoded = counted(images_mmner, "_decoded")
    tokenized = counted(type(processor.tokenizer), "__call__")
    texts = ["Jordan posts from Paris", "Paris today"]
    posts = [{"text": text, "image": str(picture)} for text in texts]
    predict(parts, posts)
    assert len(tokenized) == 1
    MultimodalNERPipeline(model=model, processor=processor)(posts, batch_size=2)
    assert len(tokenized) == 2
    explain(model, processor, texts[0], str(picture))
    assert sorted(text for text, _ in splits) == sorted([*texts, *texts, texts[0]])
    assert len(opened) == len(decoded) == 5


def test_command_line_reads_and_writes_json_lines(folder, parts, picture, tmp_path) -> None:
    """If it failed, files of posts would come back changed, reordered or incomplete."""
    posts = some_posts(picture)
    source, target = tmp_path / "posts.jsonl", tmp_path / "entities.jsonl"
    source.write_text("\n\n".join(map(json.dumps, posts)), encoding="utf-8")
    files = ["--input", str(source), "--output", str(target), "--image_dir", str(picture.parent)]
    options = ["--device", "cpu", "--dtype", "float32", "--batch_size", "8"]
    assert main(["predict", "--model", str(folder), *files, *options]) == 0
    written = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert written == rows_of(predict(parts, posts, batch_size=8))


def test_command_line_goes_on_after_a_bad_line(folder, monkeypatch, capsys) -> None:
    """If it failed, users would have to search a large file for one bad line, or lose the lines behind it."""
    lines = [
        '{"text": "Paris"}',
        '{"text": ',
        '{"id": 9, "tokens": "Paris"}',
        '{"text": "Jordan", "image": "not/there.jpg"}',
    ]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    assert main(["predict", "--model", str(folder), "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    first, broken, wrong, last = map(json.loads, printed.out.splitlines())
    assert (first["text"], last["text"]) == ("Paris", "Jordan")
    assert broken["id"] is None
    assert broken["error"].startswith("standard input:2: expected a JSON object, found")
    assert wrong == {"id": 9, "error": "post 3: expected 'tokens' to be a list of strings, found 'Paris'"}
    assert "predict: 2 posts and 1 pictures could not be read" in printed.err
    assert "broken_pictures" not in first and "not/there.jpg: expected a file" in last["broken_pictures"][0]
    command = ["predict", "Jordan", "--model", str(folder), "--image", "not/there.jpg"]
    assert main(command) == 1 and "not/there.jpg: expected a file" in capsys.readouterr().out


def test_command_line_refuses_options_that_contradict(folder, capsys) -> None:
    """If it failed, an option would be ignored without a word."""
    assert main(["predict", "--model", str(folder), "--text", "a", "--input", "b"]) == 2
    assert main(["predict", "--model", str(folder), "--image", "a.png"]) == 2
    printed = capsys.readouterr().err
    assert "expected one text or --input, found several of them" in printed
    assert "expected --text with --image" in printed


def test_half_an_emoji_is_written_as_json(tmp_path) -> None:
    """If it failed, one cut emoji would end the writing of a file."""
    whole, cut = {"text": "Zoë 😍"}, {"text": "Zoë \ud83d"}
    assert json_line(whole) == '{"text": "Zoë 😍"}'
    (tmp_path / "cut.json").write_text(json_line(cut), encoding="utf-8")
    assert json.loads((tmp_path / "cut.json").read_text(encoding="utf-8")) == cut


def test_command_line_reads_one_text(folder, picture, capsys) -> None:
    """If it failed, the README's first command would not answer."""
    one = ["--text", "Jordan in Paris", "--image", str(picture)]
    assert main(["predict", "--model", str(folder), *one, "--device", "cpu"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["text"] == "Jordan in Paris" and isinstance(result["entities"], list)
