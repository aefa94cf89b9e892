"""What owns workers: ``local`` (processes on this machine)."""
