"""`python -m sessionize`: the command line."""

from sessionize.cli import main

main()
