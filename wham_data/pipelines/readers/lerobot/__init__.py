"""LeRobot data sets: their tables, their clock, their videos."""
