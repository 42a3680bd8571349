"""The page on which labels are looked at and put right: a small server on loopback, and what it serves."""
