"""The bounded, fair queue between requests and workers."""
