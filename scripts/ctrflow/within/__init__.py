"""What a pathologist draws in a section, and what it teaches about the rest of that section (docs/within.md)."""
