"""Completion to program: what a model wrote, reduced to the Python source that is graded."""

from grader.extraction.extract import Extraction, extract
from grader.extraction.identity import exact_identity, program_identity

__all__ = ["Extraction", "exact_identity", "extract", "program_identity"]
