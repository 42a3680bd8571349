"""The frames of videos: `opening` says how they are had in this process, `isolated` in one of their own."""
