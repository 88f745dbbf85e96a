"""Photographs with labels: reading them from where they are, refining their labels, packing and splitting them."""
