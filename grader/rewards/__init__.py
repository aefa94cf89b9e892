"""Rewards: pure functions of a verdict."""
