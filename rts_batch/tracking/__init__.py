"""One video's tracking state: knows the model, knows no files and no Ray."""
