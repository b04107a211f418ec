"""The tools that agents and assistants get over a library, through the Model Context Protocol (extra `mcp`)."""
