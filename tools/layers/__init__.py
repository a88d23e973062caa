"""What the layer check knows of each language."""
