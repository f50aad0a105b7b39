"""Getting public files: the list of sources, downloads that are checked and resumed, members of archives."""
