"""What a GPU does for the tracker: measured in parts, also where no package can be fetched."""
