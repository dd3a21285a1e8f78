"""What a text says of its own structure: the headings of Markdown, the definitions of source code."""
