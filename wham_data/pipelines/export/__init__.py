"""A corpus as what others train from: parts, published whole, with their licences."""
