"""Dreams as files: what they start from, their actions, and what is saved of them."""
