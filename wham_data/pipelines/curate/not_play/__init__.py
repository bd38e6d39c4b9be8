"""Which steps are not play, and why: flags by rules, taken out of `keep`."""
