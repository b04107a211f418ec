"""Files and bytes of seven modalities -> float32 tensors. Knows no model.

Reading (`read` of each module) needs no torch, so that a decode worker starts in a fraction of a second;
preparing (`prepare`) returns torch tensors.
"""

from preprocess.source import Hints, Limits, MediaError, Plan, Segment, Source

__all__ = ["Hints", "Limits", "MediaError", "Plan", "Segment", "Source"]
