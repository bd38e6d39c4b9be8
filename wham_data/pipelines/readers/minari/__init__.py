"""Minari's data sets, in each of the forms that Minari writes."""
