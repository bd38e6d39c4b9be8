"""Tar files of pictures, as the WebDataset library writes and reads them."""
