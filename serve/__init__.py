"""What a person or a program talks to: command line, library, HTTP API, web page."""
