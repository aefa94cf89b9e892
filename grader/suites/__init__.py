"""Suites: what the tasks are, where their files are found, and one loader for each format."""
