"""`python -m rts_batch` is `rts-batch`."""

from rts_batch.cli.app import main

if __name__ == "__main__":
    main()
