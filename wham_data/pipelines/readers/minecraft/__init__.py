"""Minecraft's recordings: VPT and its descendants."""
