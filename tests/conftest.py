"""Settings of every test."""

import pytest
import torch

from modeling_mmner.training import features

# The models here are so small that a second thread costs more than it gives, above all on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_feature_folder(tmp_path_factory):
    """Picture features are kept in a folder of the test run, not in the user's."""
    folder = tmp_path_factory.mktemp("features")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "default_folder", lambda: folder)
        yield
