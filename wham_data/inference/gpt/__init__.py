"""The transformer of WHAM: its sizes, attention, cache, and dreaming with it."""
