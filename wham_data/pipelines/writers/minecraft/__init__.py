"""Writers of Minecraft clips, a format each."""
