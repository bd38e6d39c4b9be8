"""Windows for training: which there are, in which order they come, and how they are read."""

from wham_data.feed.dataset import WindowDataset
from wham_data.feed.tensors import to_numpy, to_torch
from wham_data.feed.view import WindowView

__all__ = ["WindowDataset", "WindowView", "to_numpy", "to_torch"]
