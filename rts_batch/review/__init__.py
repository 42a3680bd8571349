"""Looking at results: overlays of masks on frames."""
