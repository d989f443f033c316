"""`python -m heap_assets.cli`."""

from heap_assets.cli.main import main

main()
