"""Adapters for RL trainers, one file a trainer; each is imported only by who uses it."""
