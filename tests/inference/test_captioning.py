"""Tests of `caption`: what tiny models of each kind say of pictures, each picture once, in a file that
survives being killed.
"""

import json
import shutil
import signal
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
from modeling_mmner.cli import main
from modeling_mmner.inference.captioning import (
    MOST_CHARACTERS,
    PROMPT,
    Captioner,
    CaptionFile,
    caption_corpus,
)
from tests.elsewhere import run_elsewhere
from tests.small_corpora import encoded, write_posts
from tests.tiny import stir

ROOT = Path(__file__).parents[2]
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = SIZES | {"image_size": 16, "patch_size": 8}
SQUARE = {"height": 16, "width": 16}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WORDS = [
    "a",
    "the",
    "dog",
    "cat",
    "boat",
    "on",
    "in",
    "red",
    "green",
    "blue",
    "house",
    "near",
    "sky",
    "man",
    "user",
    ":",
]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %} {{ message['role'] }} :{% for part in message['content'] %}"
    " {% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}{%"
    " if add_generation_prompt %} assistant :{% endif %}"
)

# Tiny models of each kind


def word_tokenizer(*images: str) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of `WORDS`, of those of the prompt and of tokens that stand for pictures."""
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    words = dict.fromkeys([*names.values(), *images, *WORDS, *PROMPT.split(), "assistant"])
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
    config = transformers.GitConfig(
        vision_config=VISION, vocab_size=len(tokenizer), max_position_embeddings=64, **SIZES, **IDS
    )
    return transformers.GitForCausalLM(config), [transformers.GitProcessor(clip_pictures(), tokenizer)]


def encoder_decoder():
    tokenizer = word_tokenizer()
    decoder = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2, **IDS
    )
    pair = transformers.ViTConfig(**VISION), decoder
    model = transformers.VisionEncoderDecoderModel(
        transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
            *pair, decoder_start_token_id=1, **IDS
        )
    )
    return model, [transformers.ViTImageProcessor(size=SQUARE), tokenizer]


def llava():
    tokenizer = word_tokenizer("<image>")
    text = transformers.LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **SIZES, **IDS)
    towers = {
        "vision_config": transformers.CLIPVisionConfig(**VISION),
        "text_config": text,
        "vision_feature_layer": -1,
    }
    config = transformers.LlavaConfig(image_token_index=tokenizer.convert_tokens_to_ids("<image>"), **towers)
    how = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    template = TEMPLATE.replace("IMAGE", "<image>")
    processor = transformers.LlavaProcessor(clip_pictures(), tokenizer, chat_template=template, **how)
    return transformers.LlavaForConditionalGeneration(config), [processor]


def qwen():
    """A model whose prompts are longer for larger pictures."""
    places = ("image", "video", "vision_start", "vision_end")
    tokens = [f"<|{name}|>" for name in ("image_pad", "video_pad", "vision_start", "vision_end")]
    tokenizer = word_tokenizer(*tokens)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = transformers.Qwen2VLConfig(
        vision_config={
            "depth": 1,
            "embed_dim": 16,
            "hidden_size": 16,
            "num_heads": 2,
            "patch_size": 4,
            "mlp_ratio": 2,
        },
        text_config=SIZES
        | IDS
        | {"vocab_size": len(tokenizer), "num_key_value_heads": 2, "rope_parameters": rope},
        **{
            f"{place}_token_id": number
            for place, number in zip(places, tokenizer.convert_tokens_to_ids(tokens), strict=True)
        },
    )
    pictures = transformers.Qwen2VLImageProcessor(patch_size=4, min_pixels=64, max_pixels=1024)
    videos = transformers.Qwen2VLVideoProcessor(patch_size=4)
    template = TEMPLATE.replace("IMAGE", "<|vision_start|> <|image_pad|> <|vision_end|>")
    processor = transformers.Qwen2VLProcessor(pictures, tokenizer, videos, chat_template=template)
    return transformers.Qwen2VLForConditionalGeneration(config), [processor]


KINDS = {make.__name__: make for make in (blip, git, encoder_decoder, llava, qwen)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Callable[[str], str]:
    """The folder of a model of a kind."""
    folder = tmp_path_factory.mktemp("models")

    def path_of(kind: str) -> str:
        if not (folder / kind).is_dir():
            torch.manual_seed(0)
            model, readers = KINDS[kind]()
            stir(model, scale=0.3)
            for part in (model, *readers):
                part.save_pretrained(folder / kind)
        return str(folder / kind)

    return path_of


# A small corpus

PICTURES = {
    "1": 1,
    "2": 2,
    "4": 3,
    "5": 1,
    "6": 4,
    "8": 5,
    "9": 2,
    "10": 6,
}  # those of 5 and 9 are in another split, too
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


def run(*arguments: object) -> int:
    return main(["caption", *map(str, arguments)])


def entries_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts_of(path: Path) -> dict[str, str]:
    return {entry["id"]: entry["caption"] for entry in entries_of(path)}


class Describer:
    """Stands in for a model: a text for each picture, and a list of how many pictures it was asked of at a
    time.
    """

    def __init__(
        self, text: Callable[[Image.Image], str] = lambda picture: f"colours {picture.tobytes()[:4].hex()}"
    ) -> None:
        self.text, self.seen, self.sizes = text, [], []

    def __call__(self, pictures: list[Image.Image]) -> list[str]:
        self.sizes.append(len(pictures))
        self.seen += [picture.tobytes() for picture in pictures]
        return [self.text(picture) for picture in pictures]


def rows_of(*posts: tuple[str, list[bytes]]) -> datasets.Dataset:
    """Rows of posts with several pictures."""
    rows = [
        {"id": post, "images": [{"bytes": one, "path": None} for one in pictures]} for post, pictures in posts
    ]
    kinds = {"id": datasets.Value("string"), "images": datasets.List(datasets.Image(decode=False))}
    return datasets.Dataset.from_list(rows, features=datasets.Features(kinds))


# What is written


@pytest.mark.parametrize("kind", KINDS)
def test_batched_equals_one_by_one(kind, saved, corpus, tmp_path):
    """If it failed, a caption would depend on the pictures that happen to stand beside its own."""
    for size in (1, 4):
        options = ["--model", saved(kind), "--batch_size", size, "--max_new_tokens", 8]
        assert run(corpus, *options, "--output_file", tmp_path / f"{size}.jsonl") == 0
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "4.jsonl").read_bytes()
    captions = texts_of(tmp_path / "4.jsonl")
    assert list(captions) == PICTURED and len(set(captions.values())) > 2
    assert captions["5"] == captions["1"] and captions["9"] == captions["2"]
    assert {entry["model"] for entry in entries_of(tmp_path / "4.jsonl")} == {saved(kind)}
    assert read_contexts([str(tmp_path / "4.jsonl")], "caption") == captions
    with_them = with_contexts(open_corpus(str(corpus)).splits, "caption", [str(tmp_path / "4.jsonl")])
    assert list(with_them["validation"][CONTEXT]) == [captions["5"], captions["6"], None]


def by_hand(kind: str, folder: str, picture: Image.Image, prompt: str | None = None) -> str:
    """What a model says of a picture as the documentation of its kind has it."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    tokenizer, shown = transformers.AutoTokenizer.from_pretrained(folder), 0
    pictures = transformers.AutoImageProcessor.from_pretrained(folder)
    inputs = dict(pictures(picture, return_tensors="pt"))
    if kind in ("llava", "qwen"):
        processor = transformers.AutoProcessor.from_pretrained(folder)
        content = [{"type": "image"}, {"type": "text", "text": prompt or PROMPT}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = processor(images=picture, text=text, return_tensors="pt", add_special_tokens=False)
        shown = inputs["input_ids"].shape[1]
    elif prompt is not None:
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        inputs["input_ids"] = torch.tensor(
            [[1, *ids] if kind == "git" else [1, *ids, 2]]
        )  # BLIP takes the last one off
        shown = 1 + len(ids)
    generated = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, shown:]
    return tokenizer.decode(generated, skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    ("kind", "prompt"),
    [*((kind, None) for kind in KINDS), *((kind, "a dog on") for kind in KINDS if kind != "encoder_decoder")],
)
def test_captions_are_what_the_model_says(kind, prompt, saved, corpus):
    """If it failed, a model would be asked otherwise than it was trained to be, or the prompt stand in the
    caption.
    """
    pictures = [Image.open(corpus / "images" / f"{post}.jpg").convert("RGB") for post in ("1", "4", "6")]
    captions = Captioner(saved(kind), prompt=prompt, max_new_tokens=8)(pictures)
    expected = [by_hand(kind, saved(kind), picture, prompt) for picture in pictures]
    assert [caption.strip() for caption in captions] == expected
    assert len(set(expected)) > 1


def test_posts_are_counted(saved, corpus, tmp_path, capsys):
    """If it failed, nobody would see that posts have no caption, or why."""
    options = ["--model", saved("blip"), "--max_new_tokens", 4, "--output_file", tmp_path / "captions.jsonl"]
    assert run(corpus, *options) == 0 == run(corpus, *options)
    printed = capsys.readouterr().out.splitlines()
    assert (
        printed[0]
        == f"{tmp_path}/captions.jsonl: 8 posts with a caption, 8 of them new; 6 pictures described"
    )
    assert (
        printed[3]
        == f"{tmp_path}/captions.jsonl: 8 posts with a caption, 0 of them new; 0 pictures described"
    )
    assert (
        printed[1]
        == printed[4]
        == "without a caption: 2 posts that have no picture, 1 whose picture is broken"
    )
    broken = corpus / "images" / "11.jpg"
    assert printed[2].startswith(
        f"the first broken one is that of 11: picture {broken}: expected one of the formats JPEG"
    )


def test_several_pictures(tmp_path):
    """If it failed, a post's second picture would have no caption, or a broken one cost all posts theirs."""
    one, two, three = (encoded(seed, "PNG") for seed in (1, 2, 3))
    posts = [
        ("a", [one, two]),
        ("b", [two, one, two]),
        ("c", [three, b"no picture"]),
        ("d", []),
        ("e", [three]),
    ]
    describer, file = Describer(), CaptionFile(tmp_path / "captions.jsonl", {"model": "m"})
    counts = caption_corpus({"train": rows_of(*posts)}, describer, file, batch_size=1)
    first, second, third = map(
        describer.text, (Image.frombytes("RGB", (24, 16), seen) for seen in describer.seen)
    )
    assert texts_of(file.path) == {"a": f"{first} {second}", "b": f"{second} {first}", "e": third}
    assert describer.sizes == [1, 1, 1]
    assert (counts.new, counts.pictures, counts.without) == (3, 3, 1)
    assert len(counts.broken) == 1 and counts.broken[0].startswith(
        "c: picture row with path None: expected one of the formats"
    )


def test_hostile_captions_stay_data(tmp_path):
    """If it failed, what is written in a picture could add lines to the file, or commands to a terminal."""
    hostile = 'a\n{"id": "2"}\r\x1b[31mb\x00c\u2028d \ud83d' + "e" * 5000
    file = CaptionFile(tmp_path / "captions.jsonl", {"model": "m"})
    caption_corpus({"train": rows_of(("1", [encoded(1, "PNG")]))}, Describer(lambda _: hostile), file)
    (caption,) = read_contexts([str(file.path)], "caption").values()
    assert (
        caption.startswith('a {"id": "2"} [31mb c d \N{REPLACEMENT CHARACTER}eee')
        and len(caption) == MOST_CHARACTERS
    )
    assert file.path.read_bytes().count(b"\n") == 1


# Each picture once


def test_no_picture_twice(corpus, tmp_path):
    """If it failed, the dearest part of the work would be done again for posts that share a picture."""
    splits, path, described = open_corpus(str(corpus)).splits, tmp_path / "captions.jsonl", []
    for names in (["train"], ["test"], ["train", "validation", "test"], ["test"]):
        describer = Describer()
        caption_corpus(
            {name: splits[name] for name in names}, describer, CaptionFile(path, {"model": "m"}), batch_size=3
        )
        described += describer.seen
    assert len(described) == len(set(described)) == 6
    assert sorted(texts_of(path)) == sorted(PICTURED)


def test_post_of_two_splits_has_one_line(tmp_path):
    """If it failed, a file would say two things of one post, and training refuse it."""
    rows, file = rows_of(("1", [encoded(1, "PNG")])), CaptionFile(tmp_path / "captions.jsonl", {"model": "m"})
    assert caption_corpus({"train": rows, "test": rows}, Describer(), file).new == 1
    assert len(entries_of(file.path)) == 1


def test_post_with_other_pictures_is_refused(tmp_path):
    """If it failed, posts of a data set without ids, which count from 0 in each split, would have another
    one's caption.
    """
    first, other = rows_of(("0", [encoded(1, "PNG")])), rows_of(("0", [encoded(2, "PNG")]))
    describer, file = Describer(), CaptionFile(tmp_path / "captions.jsonl", {"model": "m"})
    with pytest.raises(
        ValueError, match=r"post '0' of test: expected the pictures of other posts of this id .* its own id"
    ):
        caption_corpus({"train": first, "test": other}, describer, file)
    assert not describer.seen
    caption_corpus({"train": first}, describer, file)
    with pytest.raises(
        ValueError,
        match=r"post '0' of train: expected the pictures of .* its line in .*captions.jsonl, found",
    ):
        caption_corpus({"train": other}, describer, CaptionFile(file.path, {"model": "m"}))


# Interrupted and resumed


def test_file_cut_anywhere_is_gone_on_with(corpus, tmp_path):
    """If it failed, a run that was killed while it wrote would have to begin anew, or leave a line that
    cannot be read.
    """
    splits, path = open_corpus(str(corpus)).splits, tmp_path / "captions.jsonl"
    whole = Describer()
    caption_corpus(splits, whole, CaptionFile(path, {"model": "m"}), batch_size=2)
    content = path.read_bytes()
    for length in [*range(0, len(content), 23), *range(len(content) - 60, len(content) + 1)]:
        path.write_bytes(content[:length])
        again, file = Describer(), CaptionFile(path, {"model": "m"})
        lines = content.splitlines(keepends=True)
        kept = (
            content[:length] + b"\n" if content[length : length + 1] == b"\n" else content[:length]
        ).count(b"\n")
        assert path.read_bytes() == b"".join(lines[:kept])
        done = len(file.captions)
        caption_corpus(splits, again, file, batch_size=2)
        assert path.read_bytes() == content and again.seen == whole.seen[done:]


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from transformers import BlipForConditionalGeneration
from modeling_mmner.cli import main

log, *arguments = sys.argv[1:]
generate, calls = BlipForConditionalGeneration.generate, []

def counted(self, *args, **settings):
    calls.append(len(settings["pixel_values"]))
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    with open(log, "a") as file:
        print(calls[-1], file=file)
    return generate(self, *args, **settings)

BlipForConditionalGeneration.generate = counted
sys.exit(main(["caption", *arguments]))
"""


def test_killed_run_goes_on(saved, corpus, tmp_path, monkeypatch):
    """If it failed, hours of captioning would be lost with the process, or be done twice."""
    options = [corpus, "--model", saved("blip"), "--batch_size", 2, "--max_new_tokens", 6, "--output_file"]
    assert run(*options, tmp_path / "whole.jsonl") == 0
    path = tmp_path / "captions.jsonl"
    done = run_elsewhere(
        KILLED,
        tmp_path / "log",
        *options,
        path,
        folder=tmp_path,
        blocked=(),
        check=False,
        PYTHONPATH=ROOT,
        OMP_NUM_THREADS=1,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "log").read_text() == "2\n2\n"
    assert 0 < len(entries_of(path)) < len(PICTURED)
    path.write_bytes(
        path.read_bytes() + b'{"id": "6", "capt'
    )  # as if it had been killed while it wrote the next one
    sizes, generate = [], transformers.BlipForConditionalGeneration.generate

    def counted(self, **settings):
        sizes.append(len(settings["pixel_values"]))
        return generate(self, **settings)

    monkeypatch.setattr(transformers.BlipForConditionalGeneration, "generate", counted)
    assert run(*options, path) == 0
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert sizes == [2]


# Errors


def refused(capsys, *arguments: object) -> str:
    """The error of a command that does nothing."""
    assert run(*arguments) == 2
    return capsys.readouterr().err


def test_errors_of_the_file_say_what_to_do(corpus, tmp_path, capsys):
    """If it failed, captions of two models could be mixed, another file be spoilt, or the work be lost at its
    end.
    """
    path = tmp_path / "captions.jsonl"
    common = [corpus, "--model", "org/new", "--output_file"]
    folder = tmp_path / "no" / "captions.jsonl"
    assert (
        f"caption: --output_file {folder}: expected a file in a folder that exists, found none; make"
        in refused(capsys, *common, folder)
    )
    line = {
        "id": "1",
        "caption": "a",
        "model": "org/old",
        "prompt": None,
        "max_new_tokens": 40,
        "pictures": {"ab": "a"},
    }
    path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert (
        f"caption: --output_file {path}, line 1: expected captions made with model 'org/new', to go on with"
        " them, found one with model 'org/old'; give another file, or the model of this one"
        in refused(capsys, *common, path)
    )
    path.write_text(json.dumps(line | {"model": "org/new"}) + "\n", encoding="utf-8")
    assert "made with prompt 'why', to go on with them, found one with prompt None" in refused(
        capsys, *common, path, "--prompt", "why"
    )
    for foreign in (
        '{"id": "1", "caption": "a"}\n',
        "[]\n",
        "\n",
        "a line",
        '{"id": "1"}\nmore',
        "[" * 100_000 + "\n",
    ):
        path.write_text(foreign, encoding="utf-8")
        assert "line 1: expected a line that this command wrote, found" in refused(capsys, *common, path)
        assert path.read_text(encoding="utf-8") == foreign


def test_errors_of_the_model_name_it(saved, corpus, tmp_path, capsys):
    """If it failed, a wrong model would be told by a trace of transformers' insides."""
    common = [corpus, "--output_file", tmp_path / "captions.jsonl", "--model"]
    expected = (
        "expected the folder or Hub id of a model that transformers itself can load and that writes text"
        " about pictures"
    )
    assert f"--model {tmp_path}/none: {expected}" in refused(capsys, *common, tmp_path / "none")
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    assert "such as BLIP, GIT, LLaVA), found one of type 'bert'" in refused(
        capsys, *common, tmp_path / "bert"
    )
    model, (pictures, _) = encoder_decoder()
    for part in (model, pictures):
        part.save_pretrained(tmp_path / "half")
    assert "found one without a tokenizer" in refused(capsys, *common, tmp_path / "half")
    assert "--prompt: expected none with" in refused(
        capsys, *common, saved("encoder_decoder"), "--prompt", "a dog"
    )
    assert "device cuda:77: expected one that this computer has" in refused(
        capsys, *common, saved("blip"), "--device", "cuda:77"
    )


def test_prompt_without_its_picture_is_refused(saved, corpus, tmp_path, capsys):
    """Regression: LLaVA without a chat template was not shown the pictures, and made captions up."""
    shutil.copytree(saved("llava"), tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    common = [
        corpus,
        "--output_file",
        tmp_path / "captions.jsonl",
        "--max_new_tokens",
        6,
        "--model",
        tmp_path / "bare",
    ]
    message = refused(capsys, *common)
    assert (
        "expected a model that captions a picture with the prompt None (--prompt; some models have a form"
        in message
    )
    assert "found nothing in it that stands for the picture" in message
    assert "with the prompt 'a dog'" in refused(capsys, *common, "--prompt", "a dog")
    assert run(*common, "--prompt", "user : <image> a dog") == 0
    assert len(set(texts_of(tmp_path / "captions.jsonl").values())) > 1


def test_code_of_a_model_is_not_run(corpus, tmp_path, capsys):
    """If it failed, captioning with a stranger's model would run a stranger's program."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    names = {
        "AutoConfig": "own.Config",
        "AutoModelForImageTextToText": "own.Model",
        "AutoProcessor": "own.Processor",
    }
    for model_type in ("own", "git"):
        (folder / "config.json").write_text(json.dumps({"model_type": model_type, "auto_map": names}))
        (folder / "processor_config.json").write_text(json.dumps({"auto_map": names}))
        message = refused(capsys, corpus, "--output_file", tmp_path / "captions.jsonl", "--model", folder)
        assert (
            f"--model {folder}: expected the folder or Hub id of a model that transformers itself can load"
            in message
        )
    assert not (tmp_path / "mark").exists()


def test_errors_of_the_options(corpus, tmp_path, capsys):
    """If it failed, a misspelt split would be an empty file."""
    common = [corpus, "--model", "org/model", "--output_file", tmp_path / "captions.jsonl"]
    assert "caption: --splits: expected some of train,validation,test, found valid" in refused(
        capsys, *common, "--splits", "train,valid"
    )
    with pytest.raises(SystemExit):
        run(*common, "--batch_size", 0)
    assert "argument --batch_size: expected a number from 1, found '0'" in capsys.readouterr().err
    assert "expected no --tag_scheme" in refused(capsys, "sample", *common[1:], "--tag_scheme", "bio")
