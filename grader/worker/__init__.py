"""Grades one sample: program, cell, answers, judge, verdict."""
