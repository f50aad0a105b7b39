"""Fetching public files: the source list, downloads with resume and checksums, members of archives."""
