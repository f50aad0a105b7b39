"""Torch modules of the methods; imported by a method when it runs, never at registration, but for `model`."""
