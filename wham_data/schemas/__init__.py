"""The nouns: time, actions, recordings, steps, manifest rows, errors. numpy and pyarrow only."""
