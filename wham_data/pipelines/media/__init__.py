"""Pictures and canvases to draw on."""
