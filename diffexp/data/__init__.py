"""Data sets held whole in memory, and the places they come from.

A *source* is what a file in conf/data names: cheap to construct, plain-valued. Its `load` reads, checks
and returns *data*: the training and held-out images that everything else works with.
"""

from diffexp.data.base import Data, Source, Split
from diffexp.data.images import ImageData
from diffexp.data.mixture import MixtureData

__all__ = ["Data", "ImageData", "MixtureData", "Source", "Split"]
