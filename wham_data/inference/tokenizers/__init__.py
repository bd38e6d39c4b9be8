"""The two families of VQ-GAN: configuration, modules, and serving them on frames."""
