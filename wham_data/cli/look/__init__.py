"""Commands that look at recordings and corpora, to judge them."""
