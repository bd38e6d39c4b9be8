"""The writer of LeRobot datasets: its files, and its tables."""
