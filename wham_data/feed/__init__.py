"""Training windows: how they are selected, ordered and read."""

from wham_data.feed.dataset import WindowDataset
from wham_data.feed.tensors import to_numpy, to_torch
from wham_data.feed.view import WindowView

__all__ = ["WindowDataset", "WindowView", "to_numpy", "to_torch"]
