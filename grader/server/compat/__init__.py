"""Endpoints of other graders, so that their users switch by changing a URL; one file an API."""
