"""The component of spaCy's, held against the pipeline that it calls."""

from pathlib import Path

import numpy as np
import pytest

from modeling_mmner import load
from modeling_mmner.model.images_mmner import PictureError
from tests.saved import save_small

spacy = pytest.importorskip("spacy")
component = pytest.importorskip("modeling_mmner.inference.spacy_component")

TEXT = "Jordan's #Paris-tour posts from Paris, by Jordan"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_small(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def nlp(folder):
    made = spacy.blank("en")
    made.add_pipe("mmner", config={"model": str(folder)})
    return made


def doc_of(nlp, text, **beside):
    doc = nlp.make_doc(text)
    doc.user_data.update(beside)
    return doc


def test_docs_hold_what_the_pipeline_finds_with_their_pictures(nlp, folder):
    """If it failed, spaCy would give other entities or scores, or pictures would not be read."""
    picture = np.random.default_rng(1).integers(256, size=(64, 64, 3), dtype=np.uint8)
    posts = [{"text": TEXT}, {"text": TEXT, "images": [picture]}, {"text": TEXT, "image": picture}]
    expected = load(str(folder))(posts)
    assert expected[0] != expected[1] == expected[2] != []
    for post, found in zip(posts, expected, strict=True):
        doc = nlp(doc_of(nlp, **post))
        group = doc.spans["mmner"]
        assert group.attrs["scores"] == pytest.approx([one["score"] for one in found], abs=1e-6)
        assert [span.label_ for span in group] == [one["entity_group"] for one in found]
        for span, one in zip(group, found, strict=True):
            assert span.start_char <= one["start"] < one["end"] <= span.end_char


def test_entities_take_in_whole_tokens_and_do_not_overlap(nlp, monkeypatch):
    """If it failed, `doc.ents` would lose what ends within a token, or refuse what shares one."""
    found = [
        ("LOC", 0, 3, 0.9),
        ("PER", 3, 8, 0.8),
        ("ORG", 12, 16, 0.7),
    ]  # in tokens "Limaport", "to", "Rome"
    keys = ("entity_group", "start", "end", "score")
    entities = [dict(zip(keys, one, strict=True)) for one in found]
    monkeypatch.setattr(nlp.get_pipe("mmner"), "ner", lambda post: entities)
    doc = nlp("Limaport to Rome")
    assert [(entity.text, entity.label_) for entity in doc.ents] == [("Limaport", "LOC"), ("Rome", "ORG")]
    assert [span.label_ for span in doc.spans["mmner"]] == ["LOC", "PER", "ORG"]
    again = spacy.tokens.Doc(nlp.vocab).from_bytes(doc.to_bytes())
    assert again.spans["mmner"].attrs["scores"] == [0.9, 0.8, 0.7]


def test_a_batch_is_one_call_and_gives_what_docs_give_one_by_one(nlp, monkeypatch):
    """If it failed, `nlp.pipe` would be as slow as Doc by Doc, or mix Docs up."""
    texts = [TEXT, "", "posts from Paris", "Jordan", TEXT[::-1]]
    alone = [nlp(text).to_json() for text in texts]
    mmner, sizes = nlp.get_pipe("mmner"), []
    ask = mmner.ner

    def counted(posts, **options):
        sizes.append(len(posts))
        return ask(posts, **options)

    monkeypatch.setattr(mmner, "ner", counted)
    assert [doc.to_json() for doc in nlp.pipe(iter(texts), batch_size=2)] == alone
    assert sizes == [2, 2, 1]


def test_a_saved_nlp_is_loaded_with_its_model(nlp, folder, tmp_path):
    """If it failed, `nlp.to_disk` would lose the component or its settings."""
    nlp.add_pipe("mmner", name="sure", config={"model": str(folder), "threshold": 1.0})
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path)
    assert again.pipe_names == ["mmner", "sure"]
    doc, expected = again(TEXT), nlp(TEXT)
    assert doc.spans["mmner"].attrs == expected.spans["mmner"].attrs != {"scores": []}
    assert len(doc.spans["sure"]) == 0 == len(doc.ents)


def test_unreadable_pictures_raise_or_go_to_spacys_error_handler(nlp):
    """If it failed, one lost picture would end a stream, though its owner handles errors, or be silent."""
    docs = [doc_of(nlp, TEXT), doc_of(nlp, TEXT, image="/nowhere.jpg"), doc_of(nlp, "Jordan")]
    message = "picture /nowhere.jpg: expected a file, found none"
    with pytest.raises(PictureError, match=f"post 1: {message}"):
        nlp(docs[1])
    with pytest.raises(PictureError, match=f"post 2: {message}"):
        list(nlp.pipe(docs))
    told = []
    nlp.set_error_handler(lambda name, _, docs, error: told.append((name, docs, str(error))))
    assert [doc.text for doc in nlp.pipe(docs)] == [TEXT, "Jordan"]
    [(name, failed, error)] = told
    assert (name, failed) == ("mmner", [docs[1]]) and message in error
