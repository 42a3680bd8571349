"""`python -m rts_batch.cli` is the `rts-batch` command."""

from rts_batch.cli.app import main

main()
