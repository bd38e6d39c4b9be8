"""Import torchvision beside a torch without CUDA.

torchvision's wheels on the package index need CUDA's libraries. Without them their compiled operators
are missing, and the import stops at the first that it describes. LeRobot and MosaicML's streaming use
none of them, so it is enough that their names are there.
"""

import sys
import warnings

import torch

warnings.filterwarnings("ignore", message="Failed to load image Python extension")
try:
    import torchvision  # noqa: F401
except RuntimeError:
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in [each for each in sys.modules if each.split(".")[0] == "torchvision"]:
        del sys.modules[name]
