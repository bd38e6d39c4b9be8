"""The data types of the package: time, actions, recordings, steps, manifest rows, errors.

This layer imports numpy and pyarrow, and nothing else from outside the standard library.
"""
