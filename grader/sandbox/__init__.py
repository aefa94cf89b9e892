"""Cells: where untrusted programs run. Each kernel mechanism has one module."""
