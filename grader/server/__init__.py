"""The front door: the HTTP service."""
