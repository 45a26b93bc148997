"""Tests of `contexts`: what tiny models of each kind say of pictures, each picture once, in a file that
survives being killed.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from dataset_scripts.contexts import CONTEXT, read_contexts, with_contexts
from dataset_scripts.opening import open_corpus
from modeling_mmner.inference.picture_contexts import MOST_CHARACTERS, PROMPT, Captioner, write_contexts
from tests.small_corpora import encoded, write_posts
from tests.tiny import stir

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = SIZES | {"image_size": 16, "patch_size": 8}
SQUARE = {"height": 16, "width": 16}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WORDS = "a the dog cat boat on in red green blue house near sky man user :"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %} {{ message['role'] }} :{% for part in message['content'] %}"
    " {% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}{%"
    " if add_generation_prompt %} assistant :{% endif %}"
)

# Tiny models of each kind


def word_tokenizer(*images: str) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of `WORDS`, of those of the prompt and of tokens that stand for pictures."""
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    words = dict.fromkeys([*names.values(), *images, *WORDS.split(), *PROMPT.split(), "assistant"])
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", extra_special_tokens=[*images], **names
    )


def clip_pictures() -> transformers.CLIPImageProcessor:
    return transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=SQUARE)


def blip():
    tokenizer = word_tokenizer()
    text = SIZES | IDS | {"vocab_size": len(tokenizer), "encoder_hidden_size": 16, "sep_token_id": 2}
    config = transformers.BlipConfig(text_config=text, vision_config=VISION, image_text_hidden_size=16)
    processor = transformers.BlipProcessor(transformers.BlipImageProcessor(size=SQUARE), tokenizer)
    return transformers.BlipForConditionalGeneration(config), [processor]


def git():
    tokenizer = word_tokenizer()
    sizes = SIZES | IDS | {"vocab_size": len(tokenizer), "max_position_embeddings": 64}
    config = transformers.GitConfig(vision_config=VISION, **sizes)
    return transformers.GitForCausalLM(config), [transformers.GitProcessor(clip_pictures(), tokenizer)]


def qwen():
    """A model whose prompts are longer for larger pictures."""
    names = [f"{name}_token_id" for name in ("image", "video", "vision_start", "vision_end")]
    tokens = [f"<|{name}|>" for name in ("image_pad", "video_pad", "vision_start", "vision_end")]
    tokenizer = word_tokenizer(*tokens)
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(tokens), strict=True))
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = SIZES | IDS | {"vocab_size": len(tokenizer), "num_key_value_heads": 2, "rope_parameters": rope}
    vision = {"embed_dim": 16, "hidden_size": 16, "depth": 1, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2}
    config = transformers.Qwen2VLConfig(vision_config=vision, text_config=text, **ids)
    pictures = transformers.Qwen2VLImageProcessor(patch_size=4, min_pixels=64, max_pixels=1024)
    videos = transformers.Qwen2VLVideoProcessor(patch_size=4)
    template = TEMPLATE.replace("IMAGE", "<|vision_start|> <|image_pad|> <|vision_end|>")
    processor = transformers.Qwen2VLProcessor(pictures, tokenizer, videos, chat_template=template)
    return transformers.Qwen2VLForConditionalGeneration(config), [processor]


MADE = {make.__name__: make for make in (blip, qwen, git)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Callable[[str], str]:
    """The folder of a model of a kind."""
    folder = tmp_path_factory.mktemp("models")

    def path_of(kind: str) -> str:
        if not (folder / kind).is_dir():
            torch.manual_seed(0)
            model, readers = MADE[kind]()
            stir(model, scale=0.3)
            for part in (model, *readers):
                part.save_pretrained(folder / kind)
        return str(folder / kind)

    return path_of


# A small corpus

PICTURES = {"1": 1, "2": 2, "4": 3, "5": 1, "6": 4, "8": 5, "9": 2, "10": 6}
"""Seeds; the pictures of 5 and 9 are in another split, too."""
POSTS = {
    "train": [(number, "Paris/B-LOC so/O") for number in ("1", "2", "3", "4", "8")],
    "valid": [(number, "me/O") for number in ("5", "6", "11")],
    "test": [(number, "me/O") for number in ("9", "10", "7")],
}
PICTURED = ["1", "2", "4", "8", "5", "6", "9", "10"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Eight posts with six pictures, two without, and one whose picture is broken."""
    folder = write_posts(tmp_path_factory.mktemp("corpus") / "corpus", POSTS)
    (folder / "images").mkdir()
    for post, seed in PICTURES.items():
        (folder / "images" / f"{post}.jpg").write_bytes(encoded(seed, "PNG"))
    (folder / "images" / "2.jpg").write_bytes((folder / "images" / "9.jpg").read_bytes())
    Image.open(folder / "images" / "4.jpg").resize((64, 24)).save(folder / "images" / "4.jpg", "PNG")
    (folder / "images" / "11.jpg").write_bytes(b"no picture")
    return folder


def entries_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts_of(path: Path) -> dict[str, str]:
    return {entry["id"]: entry["caption"] for entry in entries_of(path)}


class Describer(Captioner):
    """Stands in for a model: a text for each picture, how many pictures it was asked of at a time, and the
    lines that were in the file by then.
    """

    def __init__(self, path: Path) -> None:
        super().__init__("m")
        self.path = path
        self.before: list[int] = []
        self.seen: list[bytes] = []
        self.sizes: list[int] = []

    def text(self, picture: Image.Image) -> str:
        return f"colours {picture.tobytes()[:4].hex()}"

    def __call__(self, pictures: list[Image.Image]) -> list[str]:
        self.sizes.append(len(pictures))
        self.before.append(self.path.read_bytes().count(b"\n") if self.path.exists() else 0)
        self.seen += [picture.tobytes() for picture in pictures]
        return [self.text(picture) for picture in pictures]


@pytest.fixture()
def describer(tmp_path) -> Describer:
    return Describer(tmp_path / "captions.jsonl")


def rows_of(*posts: tuple[str, list[bytes]]) -> datasets.Dataset:
    """Rows of posts with several pictures."""
    rows = [{"id": post, "images": [{"bytes": one, "path": None} for one in read]} for post, read in posts]
    kinds = {"id": datasets.Value("string"), "images": datasets.List(datasets.Image(decode=False))}
    return datasets.Dataset.from_list(rows, features=datasets.Features(kinds))


@pytest.fixture(scope="module")
def splits(corpus) -> dict[str, datasets.Dataset]:
    return open_corpus(str(corpus)).splits


# What is written


def by_hand(kind: str, folder: str, picture: Image.Image, prompt: str | None = None) -> str:
    """What a model says of a picture as the documentation of its kind has it."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    if kind == "blip":
        inputs = processor(images=picture, text=prompt, return_tensors="pt")
        shown = 0 if prompt is None else inputs["input_ids"].shape[1] - 1  # BLIP takes the last one off
    else:
        content = [{"type": "image"}, {"type": "text", "text": prompt or PROMPT}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = processor(images=picture, text=text, return_tensors="pt", add_special_tokens=False)
        shown = inputs["input_ids"].shape[1]
    generated = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, shown:]
    return processor.tokenizer.decode(generated, skip_special_tokens=True).strip()


@pytest.mark.parametrize("prompt", [None, "a dog on"])
@pytest.mark.parametrize("kind", ["blip", "qwen"])
def test_captions_are_what_the_model_says(kind, prompt, saved, corpus):
    """If it failed, a model would be asked otherwise than it was trained to be, the prompt stand in the
    caption, or a caption depend on the pictures that stand beside its own.
    """
    pictures = [Image.open(corpus / "images" / f"{post}.jpg").convert("RGB") for post in ("1", "4", "6")]
    captions = Captioner(saved(kind), prompt, 8, "cpu")(pictures)
    expected = [by_hand(kind, saved(kind), picture, prompt) for picture in pictures]
    assert [caption.strip() for caption in captions] == expected
    assert len(set(expected)) > 1


def test_training_reads_them(saved, splits, tmp_path):
    """If it failed, captions would not reach the posts that they are of, or nobody would see that posts have
    none, and why.
    """
    path, model = tmp_path / "captions.jsonl", saved("blip")
    captioner = Captioner(model, None, 8, "cpu")
    said = [write_contexts(splits, captioner, output_file=path, batch_size=4) for _ in range(2)]
    captions = texts_of(path)
    assert list(captions) == PICTURED and len(set(captions.values())) > 2
    assert captions["5"] == captions["1"] and captions["9"] == captions["2"]
    assert {entry["model"] for entry in entries_of(path)} == {model}
    with_them = with_contexts(splits, "caption", [str(path)])
    assert list(with_them["validation"][CONTEXT]) == [captions["5"], captions["6"], None]
    first, second, third = said[0].splitlines()
    assert first == f"{path}: 8 posts with a context, 8 of them new"
    without = "2 posts that have no picture, 1 whose picture is broken; 0 contexts are empty"
    assert second == f"6 pictures described; without a context: {without}"
    assert third.startswith("the first broken one is that of 11: picture ") and "expected one of the" in third
    assert said[1].splitlines()[0].endswith("0 of them new") and "\n0 pictures described" in said[1]


def test_several_pictures(tmp_path, describer):
    """If it failed, a post's second picture would have no caption, or a broken one cost all posts theirs."""
    one, two, three = (encoded(seed, "PNG") for seed in (1, 2, 3))
    posts = [
        ("a", [one, two]),
        ("b", [two, one, two]),
        ("c", [three, b"no picture"]),
        ("d", []),
        ("e", [three]),
    ]
    path = tmp_path / "captions.jsonl"
    said = write_contexts({"train": rows_of(*posts)}, describer, output_file=path, batch_size=1)
    pictures = [Image.frombytes("RGB", (24, 16), seen) for seen in describer.seen]
    first, second, third = map(describer.text, pictures)
    assert texts_of(path) == {"a": f"{first} {second}", "b": f"{second} {first}", "e": third}
    assert describer.sizes == [1, 1, 1]
    assert "1 posts that have no picture, 1 whose picture is broken; 0 contexts are empty\n" in said
    assert "\nthe first broken one is that of c" in said


def test_hostile_captions_stay_data(tmp_path, describer):
    """If it failed, what is written in a picture could add lines to the file, or commands to a terminal."""
    describer.text = lambda _: 'a\n{"id": "2"}\r\x1b[31mb\x00c\u2028d \ud83d' + "e" * 5000
    path = tmp_path / "captions.jsonl"
    write_contexts({"train": rows_of(("1", [encoded(1, "PNG")]))}, describer, output_file=path)
    (text,) = read_contexts([str(path)], "caption").values()
    assert text.startswith('a {"id": "2"} [31mb c d \N{REPLACEMENT CHARACTER}eee')
    assert len(text) == MOST_CHARACTERS and path.read_bytes().count(b"\n") == 1


# Each picture once


def test_no_picture_twice(splits, tmp_path, describer):
    """If it failed, the dearest part of the work would be done again for posts that share a picture, or a
    file say two things of a post that stands in two splits.
    """
    path = tmp_path / "captions.jsonl"
    for names in (["train"], ["test"], ["train", "validation", "test"], ["test"]):
        parts = {name: splits[name] for name in names} | {"again": splits[names[0]]}
        write_contexts(parts, describer, output_file=path, batch_size=3)
    assert len(describer.seen) == len(set(describer.seen)) == 6
    assert sorted(entry["id"] for entry in entries_of(path)) == sorted(PICTURED)


def test_post_with_other_pictures_is_refused(tmp_path, describer):
    """If it failed, posts of a data set without ids, which count from 0 in each split, would have another
    one's caption.
    """
    first, other = rows_of(("0", [encoded(1, "PNG")])), rows_of(("0", [encoded(2, "PNG")]))
    path = tmp_path / "captions.jsonl"
    write_contexts({"train": first}, describer, output_file=path)
    for rows in (other, rows_of(("1", [encoded(3, "PNG")]), ("1", [encoded(4, "PNG")]))):
        with pytest.raises(ValueError, match=r"post '[01]': expected the pictures of other posts .* its own"):
            write_contexts({"train": rows}, describer, output_file=path)
    assert len(entries_of(path)) == 1


# Interrupted and resumed


def test_file_cut_anywhere_is_gone_on_with(splits, tmp_path, describer):
    """If it failed, a run that was killed while it wrote would have to begin anew, or leave a line that
    cannot be read.
    """
    path = tmp_path / "captions.jsonl"
    write_contexts(splits, describer, output_file=path, batch_size=2)
    assert describer.before == [0, 2, 3, 5, 6], "what is described is in the file before more is asked"
    content, seen = path.read_bytes(), list(describer.seen)
    for length in [*range(0, len(content), 37), *range(len(content) - 30, len(content) + 1)]:
        path.write_bytes(content[:length])
        describer.seen.clear()
        write_contexts(splits, describer, output_file=path, batch_size=2)
        assert path.read_bytes() == content
        lines = content[:length].rpartition(b"\n")[0].splitlines()
        kept = {name for line in lines for name in json.loads(line)["pictures"]}
        assert describer.seen == seen[len(kept) :]


# Errors


def refused(splits, model: object, path: Path, **options: object) -> str:
    """The error of captions that are not begun."""
    with pytest.raises(ValueError) as error:
        write_contexts(splits, Captioner(str(model), **options), output_file=path)
    return str(error.value)


def test_errors_of_the_file_say_what_to_do(splits, tmp_path):
    """If it failed, captions of two models could be mixed, another file be spoilt, or the work be lost at its
    end.
    """
    path, folder = tmp_path / "captions.jsonl", tmp_path / "no/captions.jsonl"
    said = f"--output_file {folder}: expected a file in a folder that exists; make the folder"
    assert refused(splits, "org/new", folder).startswith(said)
    line = {"id": "1", "caption": "a", "model": "org/old", "prompt": None, "max_new_tokens": 40}
    path.write_text(json.dumps(line | {"pictures": {"ab": "a"}}) + "\n", encoding="utf-8")
    for given, made in (("org/new", None), ("org/old", "why")):
        said = refused(splits, given, path, prompt=made)
        place = f"--output_file {path}, line 1: expected contexts made with"
        assert said.startswith(f"{place} {{'model': '{given}'")
        assert f"'prompt': {made!r}, " in said and "found {'model': 'org/old', 'prompt': None, " in said
    for foreign in ('{"id": "1", "caption": "a"}\n', "[]\n", "\n", "a line", "[" * 100_000 + "\n"):
        path.write_text(foreign, encoding="utf-8")
        said = refused(splits, "org/new", path)
        assert "line 1: expected a line of this command, found" in said
        assert path.read_text(encoding="utf-8") == foreign


def test_errors_of_the_model_name_it(saved, splits, tmp_path):
    """If it failed, a wrong model would be told by a trace of transformers' insides, or caption wrongly."""
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    for model in (tmp_path / "none", tmp_path / "bert", saved("git")):
        said = refused(splits, model, tmp_path / "captions.jsonl")
        assert said.startswith(f"--reader {model}: expected a model for")
    said = refused(splits, saved("blip"), tmp_path / "captions.jsonl", device="cuda:77")
    assert "a --device of this computer" in said


def test_prompt_without_its_picture_is_refused(saved, splits, tmp_path):
    """Regression: a model without its chat template was not shown the pictures, and made captions up."""
    shutil.copytree(saved("qwen"), tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    path, options = tmp_path / "captions.jsonl", {"max_new_tokens": 6, "device": "cpu"}
    for prompt in (None, "a dog"):
        said = refused(splits, tmp_path / "bare", path, prompt=prompt, **options)
        assert said.startswith(f"--prompt {prompt or ''!r}: expected one that the model can do with")
        assert "number of images passed" in said
    captioner = Captioner(str(tmp_path / "bare"), "user : <|image_pad|> a dog", **options)
    write_contexts(splits, captioner, output_file=path)
    assert len(set(texts_of(path).values())) > 1


def test_code_of_a_model_is_not_run(splits, tmp_path):
    """If it failed, captioning with a stranger's model would run a stranger's program."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    kinds = {"Config": "Config", "ModelForImageTextToText": "Model", "Processor": "Processor"}
    names = {f"Auto{kind}": f"own.{name}" for kind, name in kinds.items()}
    for model_type in ("own", "git", "llava"):
        (folder / "config.json").write_text(json.dumps({"model_type": model_type, "auto_map": names}))
        (folder / "processor_config.json").write_text(json.dumps({"auto_map": names}))
        assert refused(splits, folder, tmp_path / "captions.jsonl").startswith(f"--reader {folder}: expected")
    assert not (tmp_path / "mark").exists()
