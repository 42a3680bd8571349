"""Looking at results: a contact sheet, overlay videos, an HTML report."""
