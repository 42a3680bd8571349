"""What `import rts_batch` offers beside the command line: `tracking` without Ray, `submitting` with it."""
