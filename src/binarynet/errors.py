"""The exception tree. Every error says what was given, what was expected and what to do.

BinaryNetError
  UsageError                an argument, option or input value is wrong (command line: exit code 2)
    ShapeError              an array has the wrong shape or dtype
    RecipeError             a recipe, or a key or value in it, is wrong
  DataError                 a data set or an image is missing, damaged or not what it should be
  UnsupportedLayerError     a network holds something that cannot be expressed exactly
  NonFiniteError            NaN or infinity where a number is needed
  GraphError                an inconsistent graph
  FileFormatError           a .bnn file (or a checkpoint) is not what it should be
  BackendUnavailableError   an engine or instruction set that this machine does not have
  DeviceError               a GPU, its driver or its memory failed
  VerificationError         two engines disagree
  PeerError                 another process of a run failed (or stopped), and the first one tells it
  ConnectionLostError       another process of a run has ended
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class BinaryNetError(Exception):
    """Base of all errors that binarynet raises on purpose."""


class UsageError(BinaryNetError, ValueError):
    """An argument, option or input value is wrong."""


class ShapeError(UsageError):
    """An array has the wrong shape or dtype."""


class RecipeError(UsageError):
    """A recipe is unknown, or one of its keys or values is wrong."""


class DataError(BinaryNetError):
    """A data set or an image is missing, damaged or not what it should be."""


class UnsupportedLayerError(BinaryNetError):
    """A network holds something that the packed form cannot express exactly."""


class NonFiniteError(BinaryNetError, ValueError):
    """NaN or infinity where a finite number is needed."""


class GraphError(BinaryNetError):
    """A graph is inconsistent."""


class FileFormatError(BinaryNetError):
    """A file is not a valid .bnn file or checkpoint."""


class BackendUnavailableError(BinaryNetError):
    """An engine or instruction set that this machine (or build) does not have."""


class DeviceError(BinaryNetError):
    """A GPU, its driver or its memory failed; the text has the driver's own name for it."""


class VerificationError(BinaryNetError):
    """Two engines that must agree do not."""


class PeerError(BinaryNetError):
    """Another process of the same run failed or stopped; the run's first process tells the user."""


class ConnectionLostError(BinaryNetError):
    """Another process of the same run has ended without a word."""


INSTALL_TRAIN = 'pip install "binarynet[train]" (in a checkout: pip install ".[train]")'
"""What to do where a library of the training extra is missing."""


def nearest(given: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` where something similar is known, else nothing: for messages about unknown names."""
    import difflib

    close = difflib.get_close_matches(given, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
