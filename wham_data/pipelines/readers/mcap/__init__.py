"""Recordings of ROS 2 and Foxglove: topics of pictures and controls in MCAP."""
