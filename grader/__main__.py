"""The command line, for who has the interpreter at hand and not the script: ``python -m grader``."""

from grader.cli import main

main()
