"""Settings of every test."""

import pytest
import torch
from huggingface_hub import constants

# The models here are so small that a second thread costs more than it gives, above all on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache_folder(tmp_path_factory):
    """Picture features and notes on files are kept in a folder of the test run, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HOME", str(tmp_path_factory.mktemp("home")))
        yield
