"""Runs that several files' tests start from."""

from pathlib import Path

import pytest

import train_accelerate
from modeling_mmner.training.recipes import Recipe
from tests.interrupted import recipe_in
from tests.training.test_training import write_corpus


@pytest.fixture(scope="package")
def corpus(tmp_path_factory) -> Path:
    """A folder with a small corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


@pytest.fixture(scope="package")
def uninterrupted(corpus, tmp_path_factory) -> Recipe:
    """The recipe of a finished run."""
    recipe = recipe_in(corpus, output_dir=str(tmp_path_factory.mktemp("uninterrupted")))
    train_accelerate.train(recipe)
    return recipe
