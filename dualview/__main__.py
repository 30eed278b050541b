"""`python -m dualview` is `dualview`."""

from dualview.cli import main

main()
