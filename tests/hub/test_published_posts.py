"""Which posts everybody gets to see: of one's own those of --card_examples alone, in card, page, Space and
push; and that a model of one's own posts is called and described by them.
"""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from PIL import Image

import train_accelerate
from dataset_scripts.formats.reader import CorpusError
from dataset_scripts.sample.examples import examples as sample_examples
from dataset_scripts.sample.texts import LANGUAGES, generate_posts
from modeling_mmner import MMNERForTokenClassification, MMNERProcessor
from modeling_mmner.cli import main
from modeling_mmner.evaluation.metrics import RunMetrics
from modeling_mmner.hub.examples import examples_of, published_examples, read_examples
from modeling_mmner.hub.push import save_hub_folder
from modeling_mmner.inference.demo import build_demo
from modeling_mmner.inference.demo_space import write_space
from modeling_mmner.model.labels_mmner import bio_labels
from modeling_mmner.training.corpus import load_corpus
from modeling_mmner.training.recipes import Recipe, load_recipe
from modeling_mmner.training.terms import terms_of
from modeling_mmner.training.vocabulary import train_tokenizer
from tests.saved import save_small
from tests.small_metrics import card_of, make_metrics, run_metrics
from tests.tiny import ready_model

TEAMS, VENUES = ("Hafenkicker", "Moorfalken"), ("Kuppelhalle", "Deichstadion")
PUBLIC = "Rotwichtel wandern zur Kuppelhalle"


def write_own(folder: Path) -> Path:
    """A corpus as people have it: a file of 40 posts with spans, and a folder of pictures."""
    (folder / "pictures").mkdir(parents=True)
    lines = []
    for number in range(40):
        team, venue = TEAMS[number % 2], VENUES[number % 3 % 2]
        text, name = f"{team} gewinnt geheim{number} im {venue}", f"bild{number:03}.png"
        start = text.index(venue)
        spans = [{"start": 0, "end": len(team), "label": "TEAM"}]
        spans.append({"start": start, "end": start + len(venue), "label": "VENUE"})
        lines.append(json.dumps({"id": f"post{number}", "text": text, "spans": spans, "image": name}))
        Image.new("RGB", (40, 30), (6 * number, 80, 200)).save(folder / "pictures" / name)
    path = folder / "vereinspost.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def write_public(folder: Path) -> Path:
    """A post that may be published, its photo with the place and a comment in it."""
    exif = Image.Exif()
    exif[0x010E] = "GEHEIMER ORT"
    photo = Image.linear_gradient("L").resize((2000, 1000))
    photo.save(folder / "foto.jpg", exif=exif, comment=b"GEHEIMER ORT")
    path = folder / "public.jsonl"
    path.write_text(json.dumps({"text": PUBLIC, "image": "foto.jpg"}) + "\n", encoding="utf-8")
    return path


def recipe_of(path: Path, **settings) -> Recipe:
    own = {"dataset": str(path), "image_dir": str(path.parent / "pictures")}
    return load_recipe("quickstart", own | settings)


def save_own(recipe: Recipe, folder: Path) -> Path:
    """Save a tiny model as training on the recipe's corpus does."""
    corpus = load_corpus(recipe.corpus)
    metrics, test = make_metrics(), corpus.splits["test"]
    for block in (metrics["splits"]["test"], *metrics["splits"]["test"]["picture"].values()):
        score = block["overall"]
        block |= {"by_type": {"TEAM": score, "VENUE": score}, "by_language": {"unknown": score}}
        block["by_source"] = {test[0]["source"]: score}
    metrics |= {"recipe": recipe.to_dict(), "terms": terms_of(recipe), "license": "other"}
    metrics["corpus"] = asdict(corpus.summary())
    tokenizer = train_tokenizer([["Rotwichtel", "zur"]], 60)
    labels = bio_labels(["TEAM", "VENUE"])
    model = ready_model(
        text={"vocab_size": len(tokenizer)}, label2id={name: n for n, name in enumerate(labels)}
    )
    processor = MMNERProcessor(tokenizer, labels=labels, image_size=64)
    found = RunMetrics.from_dict(metrics)
    save_hub_folder(model, processor, folder=folder, metrics=found, examples=examples_of(recipe))
    return folder


def shown_of(folder: Path) -> dict[str, str]:
    """All that a model's card, page and Space say, by where."""
    parts = [kind.from_pretrained(folder) for kind in (MMNERForTokenClassification, MMNERProcessor)]
    page = build_demo(*parts, name="vereinspost", examples=published_examples(str(folder)))
    space = write_space(str(folder), folder.parent / "space")
    texts = {"page": json.dumps(page.get_config_file(), ensure_ascii=False, default=str)}
    for path in (folder / "README.md", folder / "metrics.json"):
        texts[path.name] = path.read_text("utf-8")
    for name in ("README.md", "app.py", "model/README.md", "model/metrics.json"):
        texts[f"space/{name}"] = (space / name).read_text("utf-8")
    return texts


def strange_words(texts: dict[str, str], strange: set[str]) -> set[tuple[str, str]]:
    return {
        (place, word) for place, text in texts.items() for word in re.findall(r"\w+", text) if word in strange
    }


def words_of_the_sample() -> set[str]:
    """What names the sample corpus, and the words of its entities that are no words of other texts."""
    posts = (post for language in LANGUAGES for post in generate_posts(language, "test", 1))
    names = {word for post in posts for word, tag in zip(post.tokens, post.tags, strict=True) if tag != "O"}
    common = {"The", "One", "to", "Real", "Open", "Group", "of", "Data", "In", "La", "Media"}
    return {name for name in names if name.isalpha() and len(name) > 2} - common


SAID_OF_THE_SAMPLE = {"sample", "generated", "synthetic", "quickstart", "scratch", "downloaded", "MLMNER"}


def check_private(folder: Path, corpus: Path, *, public: set[str] = frozenset()) -> dict[str, str]:
    """Read all that a model shows for words of the sample, of its recipe, and of its own corpus."""
    texts = shown_of(folder)
    posts = [json.loads(line) for line in corpus.read_text("utf-8").splitlines()]
    private = {word for post in posts for word in post["text"].split()} - {"im"} - public
    assert strange_words(texts, private) == set()
    assert (
        strange_words(texts, words_of_the_sample() | SAID_OF_THE_SAMPLE) - code_of_the_recipe(texts) == set()
    )
    assert not any(
        post["image"] in text or post["id"] + '"' in text for post in posts for text in texts.values()
    )
    return texts


def code_of_the_recipe(texts: dict[str, str]) -> set[tuple[str, str]]:
    """Places where a word of the recipe is none of its corpus: the folder of the run in its settings."""
    return {(place, "quickstart") for place in texts if place.endswith("metrics.json")}


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    return write_own(tmp_path_factory.mktemp("own"))


def test_model_of_own_posts_says_nothing_of_the_sample_and_shows_no_post(own, tmp_path):
    """Regression: the card of a model of somebody's own posts had the sample's title, description, languages
    and sentences, and its page and Space the sample's posts.
    """
    texts = check_private(save_own(recipe_of(own), tmp_path / "model"), own)
    card = texts["README.md"]
    assert "\n# vereinspost\n" in card and "name: vereinspost\n" in card and "org/vereinspost" in card
    assert "posts of the corpus `vereinspost`: 32 posts to learn from, 32 of them with a picture" in card
    assert "(TEAM, VENUE)" in card and "language:" not in card and "widget:" not in card
    assert "by `--card_examples FILE` of `mmner push` or of training" in card
    assert not list((tmp_path / "model").glob("example_*"))


@pytest.mark.slow
def test_training_on_own_posts_publishes_none_of_them(own, tmp_path):
    """If it failed, what training really writes would say other things than the parts that make it."""
    settings = {"epochs": 1, "compare_without_pictures": False, "output_dir": str(tmp_path / "run")}
    train_accelerate.main(recipe_of(own, **settings))
    check_private(tmp_path / "run" / "model", own)


def test_posts_that_may_be_published_are_shown_with_what_is_found(own, tmp_path):
    """If it failed, --card_examples would show nothing, or with a photo the place where it was taken."""
    recipe = recipe_of(own, card_examples=str(write_public(tmp_path)))
    folder = save_own(recipe, tmp_path / "model")
    texts = check_private(folder, own, public={"Kuppelhalle"})
    (example,) = json.loads(texts["metrics.json"])["corpus"]["examples"]
    assert (example["text"], example["pictures"]) == (PUBLIC, ["example_1_1.jpg"])
    found = [f" {one['word']}: {one['entity_group']} {one['score']:.2f}" for one in example["entities"]]
    cells = [PUBLIC, "![picture 1](example_1_1.jpg)", ",".join(found).strip() or "none"]
    assert f"| {' | '.join(cells)} |\n" in texts["README.md"]
    assert f"- text: {PUBLIC}\n  example_title: example 1, read with its picture\n" in texts["README.md"]
    assert PUBLIC in texts["page"] and PUBLIC in texts["space/model/README.md"]
    with Image.open(folder / "example_1_1.jpg") as picture:
        assert picture.size == (1024, 512) and not picture.getexif() and "comment" not in picture.info
    assert b"GEHEIM" not in (folder / "example_1_1.jpg").read_bytes()
    space = folder.parent / "space"
    assert (space / "model" / "example_1_1.jpg").read_bytes() == (folder / "example_1_1.jpg").read_bytes()


def test_push_shows_each_post_that_becomes_public(own, tmp_path, capsys):
    """If it failed, a post or a picture would be published that nobody had seen named before."""
    folder = save_own(recipe_of(own), tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    command = ["push", "--model", str(folder), "--repo_id", "org/name", "--dry_run"]
    assert main([*command, "--card_examples", str(write_public(tmp_path))]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("posts that become readable for whoever sees the repository:")
    assert lines[place + 1 :] == [f"  {PUBLIC!r} example_1_1.jpg", "dry run: nothing was sent"]
    assert any(line.startswith("  example_1_1.jpg: ") for line in lines[:place])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "example_9_1.jpg").write_bytes(b"of another save")
    assert main(command) == 0
    assert "left out: example_9_1.jpg\n" in capsys.readouterr().out


def test_space_takes_posts_of_its_own(own, tmp_path, capsys):
    """If it failed, a Space could only show posts if the model had been trained anew."""
    folder = save_own(recipe_of(own), tmp_path / "model")
    command = ["demo", "--model", str(folder), "--space", str(tmp_path / "space")]
    assert main([*command, "--card_examples", str(write_public(tmp_path))]) == 0
    assert f"it shows everybody: {PUBLIC!r} with 1 pictures\n" in capsys.readouterr().out
    assert [one.text for one in published_examples(str(tmp_path / "space" / "model"))] == [PUBLIC]
    assert "'vereinspost'" in (tmp_path / "space" / "app.py").read_text("utf-8")
    assert published_examples(str(folder)) == []
    command = ["demo", "--model", "org/name", "--space", str(tmp_path / "other")]
    assert main([*command, "--card_examples", str(tmp_path / "public.jsonl")]) == 2
    assert "--card_examples: expected a model's folder, found org/name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("", "1 to 20 posts, found 0"),
        ('{"text": "a"}\n' * 21, "1 to 20 posts, found 21"),
        ('{"text": "a"}\n{"txt": "b"}', "post 2: expected either 'text' or 'tokens', found neither"),
        ("{broken", "public.jsonl:1: expected a JSON object"),
        (
            '{"text": "a", "image": "no.jpg"}',
            "post 1: pictures left out: no such file: no.jpg, looked in .*; --image_dir FOLDER",
        ),
        ('{"text": "a", "photo": "no.jpg"}', "expected the key 'image' or 'images', found 'photo'"),
    ],
    ids=["no file", "empty", "too many", "no text", "no JSON", "no picture", "another key"],
)
def test_file_that_cannot_be_read_is_told_before_training(content, said, tmp_path):
    """If it failed, an hour of training would end with the card's mistake, or the card miss a post."""
    path = tmp_path / "public.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=rf"^--card_examples {re.escape(str(path))}: expected .*{said}"):
        read_examples(path)


def test_pictures_of_a_stranger_s_model_lie_in_its_folder(own, tmp_path):
    """If it failed, a model from the Hub could put any picture of this computer on a page for all."""
    recipe = recipe_of(own, card_examples=str(write_public(tmp_path)))
    folder = save_own(recipe, tmp_path / "model")
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    metrics["corpus"]["examples"][0]["pictures"] = ["../foto.jpg", str(tmp_path / "foto.jpg")]
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    assert [one.pictures for one in published_examples(str(folder))] == [[]]


def test_models_of_the_sample_show_its_generated_posts(tmp_path):
    """If it failed, the first command's model would have an empty page, or posts in languages it has not."""
    found = examples_of(load_recipe("quickstart", {"languages": ["de", "fr"]}))
    expected = [one for one in sample_examples() if one.language in ("de", "fr")]
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.pictures[0].tobytes() for one in found] == [one.picture.tobytes() for one in expected]
    assert {one.title for one in found} == {"generated post (fr)", "generated post (de)"}
    parts = [
        kind.from_pretrained(save_small(tmp_path)) for kind in (MMNERForTokenClassification, MMNERProcessor)
    ]
    save_hub_folder(*parts, folder=tmp_path, metrics=run_metrics(), examples=found)
    shown = published_examples(str(tmp_path))
    assert [(one.text, one.pictures[0].size) for one in shown] == [(one.text, (64, 64)) for one in expected]
    assert "![picture 1](example_4_1.jpg)" in (tmp_path / "README.md").read_text("utf-8")


def test_languages_of_a_card_are_those_of_the_data_or_the_user(own):
    """Regression: posts whose language nobody had said were published as English, French, German, Spanish."""
    assert load_corpus(recipe_of(own).corpus).summary().languages == []
    assert load_corpus(recipe_of(own, language="de").corpus).summary().languages == ["de"]
    metrics = make_metrics(languages=[])
    metrics["corpus"]["languages"] = ["de", "Elvish, of Middle-earth"]  # a column may hold anything
    assert ModelCard(card_of(metrics)).data.language == ["de"]
