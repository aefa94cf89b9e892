"""The trusted code that decodes and compares answers; no untrusted code runs here."""
