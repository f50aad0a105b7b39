"""Torch modules of the methods; imported by a method when it runs, never at registration, except `model`."""
