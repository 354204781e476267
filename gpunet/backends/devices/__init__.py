"""The thin seam to the hardware."""
