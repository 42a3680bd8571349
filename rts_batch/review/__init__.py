"""Looking at results: overlay videos and an HTML report."""
