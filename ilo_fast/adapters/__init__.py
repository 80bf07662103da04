"""Our neighbours inside other people's tools: one small file a tool, imported by its name."""
