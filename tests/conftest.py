"""Settings of every test."""

import torch

# The models here are so small that a second thread costs more than it gives, above all on a busy machine.
torch.set_num_threads(1)
